"""The command ``kobox oops``."""

from __future__ import annotations

import io
import json

import pytest

from kobox.cli import main

LOG = """\
[    1.000000] divide error: 0000 [#1] PREEMPT SMP NOPTI
[    1.000000] CPU: 0 PID: 99 Comm: insmod Not tainted 6.1.0-56-amd64 #1  Debian 6.1.192-2
[    1.000000] RIP: 0010:hello_init+0x12/0x1000 [hello]
[    1.000000] Code: 31 d2 <f7> f9 90
"""


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_log_on_standard_input_is_decoded(monkeypatch, capsys):
    stdin(monkeypatch, LOG)
    assert main(["oops"]) == 0
    assert "a division by zero" in capsys.readouterr().out


def test_a_log_in_a_file_is_decoded_as_json(tmp_path, capsys):
    (tmp_path / "log").write_text(LOG)
    assert main(["oops", "--json", str(tmp_path / "log")]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["where"]["symbol"]) == ("divide-error", "hello_init")


def test_text_without_a_report_is_said_and_fails(monkeypatch, capsys):
    stdin(monkeypatch, "all is well\n")
    assert main(["oops"]) == 1
    assert "nothing in this text" in capsys.readouterr().err


def test_an_argument_that_is_no_file_and_no_place_is_wrong_usage(capsys):
    assert main(["oops", "/nowhere/log"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_bare_place_is_listed(capsys):
    assert main(["oops", "hello_init+0x12/0x40"]) == 0
    assert "hello_init+0x12/0x40" in capsys.readouterr().out


def test_a_module_file_that_is_none_is_one_clear_line(tmp_path, capsys):
    (tmp_path / "x.ko").write_text("no module")
    assert main(["oops", "--module", str(tmp_path / "x.ko"), "f+0x1"]) == 1
    assert capsys.readouterr().err.startswith("kobox oops: ")

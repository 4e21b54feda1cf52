"""The command ``kobox taint``."""

from __future__ import annotations

import io
import json

import pytest

from kobox.abi import taint
from kobox.cli import main


def test_a_value_is_explained(capsys):
    assert main(["taint", "4097"]) == 0
    assert capsys.readouterr().out.startswith("4097: tainted, P O\n")


def test_a_line_with_blanks_needs_no_quotes(capsys):
    assert main(["taint", "Tainted:", "G", "OE"]) == 0
    assert capsys.readouterr().out.startswith("12288: tainted, O E\n")


def test_json_is_a_list_of_statements(capsys):
    assert main(["taint", "--json", "0"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["value"] == 0


def test_a_log_comes_by_standard_input(monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(b"CPU: 0 PID: 1 Comm: a Tainted: P           O       6.1\n"))
    )
    assert main(["taint"]) == 0
    assert capsys.readouterr().out.startswith("4097: ")


def test_a_log_that_states_none_says_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"usb 1-1: new device\n")))
    assert main(["taint"]) == 0
    assert "states no taint" in capsys.readouterr().err


def test_the_list_holds_every_flag(capsys):
    assert main(["taint", "--list", "--json"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    assert len(data["flags"]) == len(taint.FLAGS)


@pytest.mark.parametrize("arguments", [["xyz"], ["--live", "5"]])
def test_wrong_usage_exits_2(arguments, capsys):
    assert main(["taint", *arguments]) == 2
    assert capsys.readouterr().err.startswith("kobox taint: ")

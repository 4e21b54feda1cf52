"""Where a taint came from: values as people paste them, logs, the running kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from kobox.debug.taint_report import as_data, of_host, of_log, of_text, render
from kobox.errors import UsageError


@pytest.mark.parametrize(
    "text",
    ["12288", "0x3000", "OE", "G           OE", "Tainted: G OE", " Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE "],
)
def test_a_value_is_read_however_it_is_written(text: str):
    assert of_text(text).value == 12288


@pytest.mark.parametrize("text", ["zz", "-1", "1e5", str(1 << 64)])
def test_what_is_no_value_is_refused(text: str):
    with pytest.raises(UsageError, match="no taint value"):
        of_text(text)


def test_zero_is_one_short_line():
    assert render(of_text("0")) == "0: not tainted\n"


def test_every_flag_says_meaning_cause_act_and_weight():
    text = render(of_text("4097"))
    for words in ("P  a module whose licence", "O  a module built outside", "usual cause", "set by", "matters?"):
        assert words in text


LOG = """\
[    1.0] hello: loading out-of-tree module taints kernel.
[    1.1] hello: module verification failed: signature and/or required key missing - tainting kernel
[    2.0] blob: module license 'Proprietary' taints kernel.
"""


def test_a_log_of_acts_gives_the_value_and_who_did_it():
    (found,) = of_log(LOG.splitlines())
    assert found.value == 12289
    assert found.modules == {"hello": "OE", "blob": "P"}


def test_a_log_with_reports_gives_each_new_value_once():
    lines = [
        *LOG.splitlines(),
        "[    3.0] CPU: 0 PID: 1 Comm: a Tainted: P           OE      6.1.0",
        "[    3.0] CPU: 0 PID: 1 Comm: a Tainted: P           OE      6.1.0",
        "[    4.0] CPU: 0 PID: 1 Comm: a Tainted: P        W  OE      6.1.0",
        "[    4.1] Modules linked in: hello(OE+) plain third(POE)",
    ]
    assert [one.value for one in of_log(lines)] == [12289, 12289 | 512]
    assert of_log(lines)[-1].modules == {"hello": "OE", "blob": "P", "third": "POE"}
    assert "here          blob, third" in render(of_log(lines)[-1])


def test_a_log_without_any_taint_gives_nothing():
    assert of_log(["usb 1-1: new device"]) == []


def test_the_running_kernel_is_asked_with_its_modules(tmp_path: Path):
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/tainted").write_text("4097\n")
    for name, letters in (("vendor", "PO"), ("plain", "")):
        (tmp_path / "sys/module" / name).mkdir(parents=True)
        (tmp_path / "sys/module" / name / "taint").write_text(letters + "\n")
    found = of_host(tmp_path)
    assert (found.value, found.modules) == (4097, {"vendor": "PO"})


def test_bits_without_a_name_are_mentioned():
    assert "bits 43" in render(of_text(str(1 << 43)))


def test_the_json_form_lists_every_flag():
    data = as_data(of_text("12288"))
    assert [flag["letter"] for flag in data["flags"]] == ["O", "E"]
    assert data["source"] == "12288"

"""Reading logs, points in time, options that make no sense; util-linux is not asked here."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import islice
from pathlib import Path

import pytest

from kobox.box import Kernel, boot
from kobox.cli import main
from kobox.dmesg import LEVELS, Style, lines, parse_console_level, parse_kmsg, parse_names, parse_time
from kobox.dmesg.source import CLEAR, CONSOLE_LEVEL, HostLog, KernelLog, host_boot_time
from kobox.errors import KoboxError, UsageError
from kobox.kernel.log import LogRecord
from paths import EXAMPLES


def dmesg(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["dmesg", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_record_of_dev_kmsg_is_read_with_its_escapes() -> None:
    record = parse_kmsg(b"30,17,1234567,c;caf\\xc3\\xa9: up\\x0adown\n SUBSYSTEM=usb\n DEVICE=c1:2\n")
    assert record == LogRecord(17, 1_234_567_000, 6, "café: up\ndown", facility=3, continued=True)


@pytest.mark.parametrize("junk", [b"", b"no semicolon", b"x,1,2,-;text", b"6;text", b"6,1;text"])
def test_what_is_no_record_of_dev_kmsg_is_none(junk: bytes) -> None:
    assert parse_kmsg(junk) is None


NOW = datetime(2026, 11, 30, 16, 34, 22).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds_from_now"),
    [
        ("now", 0),
        ("2026-11-30 16:34:22", 0),
        ("2026-11-30T16:34:20", -2),
        ("26-11-30 16:33", -82),
        ("20261130163421", -1),
        ("16:34", -22),
        ("-5min", -300),
        ("+1h 30min", 5400),
        ("10 min ago", -600),
        ("today", -(16 * 3600 + 34 * 60 + 22)),
        ("yesterday", -(40 * 3600 + 34 * 60 + 22)),
    ],
)
def test_points_in_time_are_understood(text: str, seconds_from_now: float) -> None:
    assert parse_time(text, NOW) - NOW == seconds_from_now


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs ago", "2026-13-01", "@x", "25:00", "+"])
def test_what_is_no_point_in_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid time value"):
        parse_time(text, NOW)


def test_a_console_level_names_what_is_still_shown() -> None:
    assert [parse_console_level(name) for name in LEVELS] == list(range(1, 9))
    assert parse_console_level("8") == 8
    for wrong in ("0", "9", "loud"):
        with pytest.raises(UsageError, match="unknown level"):
            parse_console_level(wrong)


def test_levels_may_be_numbers_and_names_in_any_case() -> None:
    assert parse_names("ERR,4,emerg", LEVELS, "level") == {3, 4, 0}


def test_the_log_of_a_run_report_is_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    report.write_text(json.dumps({"module": "hello", "log": [{"level": 4, "time": 1.5, "text": "hello: taints"}]}))
    assert dmesg(capsys, "-x", "-F", str(report)) == (0, "kern  :warn  : [    1.500000] hello: taints\n", "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{not json", "neither a log nor JSON"),
        (b'{"a": 1}', "JSON without a log"),
        (b'{"dmesg": [{"pri": 6, "time": 1.0}]}', "record 0: not a log record"),
        (b'{"log": ["text"]}', "record 0: not a log record"),
        (b'[{"pri": "loud", "fac": "kern", "msg": "x"}]', "record 0: not a log record"),
    ],
)
def test_a_file_that_is_no_log_is_one_clear_line(
    content: bytes, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "log"
    file.write_bytes(content)
    code, out, err = dmesg(capsys, "-F", str(file))
    assert (code, out) == (1, "")
    assert says in err
    assert str(file) in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ([], 3, "no kobox kernel"),
        (["-F", "/no/such/log"], 1, "/no/such/log: No such file"),
        (["-F", "LOG", "-C"], 2, "a file has no console and cannot be cleared"),
        (["-F", "LOG", "-l", "loud"], 2, "unknown level 'loud'; hint: one of emerg"),
        (["-F", "LOG", "-f", "nsa"], 2, "unknown facility 'nsa'"),
        (["-F", "LOG", "-n", "9"], 2, "unknown level '9'"),
        (["-F", "LOG", "--since", "soon"], 2, 'invalid time value "soon"'),
        (["-F", "LOG", "-r", "-x"], 2, "--raw and --decode exclude each other"),
        (["-F", "LOG", "-r", "-l", "err"], 2, "--raw shows a file as it is"),
        (["-F", "LOG", "--live"], 2, "--file and --live exclude each other"),
        (["--live", "-n", "1"], 2, "kobox does not change this host's log"),
    ],
)
def test_options_that_cannot_be_are_one_clear_line(
    options: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text("<6>[    0.000000] one\n")
    got, out, err = dmesg(capsys, *(str(log) if word == "LOG" else word for word in options))
    assert (got, out) == (code, "")
    assert says in err
    assert err.count("\n") == 1


def test_nothing_comes_after_a_files_end(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("<6>[    0.000000] one\n")
    assert dmesg(capsys, "-w", "-F", str(log)) == (0, "[    0.000000] one\n", "")
    assert dmesg(capsys, "-W", "-F", str(log)) == (0, "", "")


def test_this_hosts_boot_is_in_the_past_and_agrees_with_proc() -> None:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(datetime.now().timestamp() - uptime - host_boot_time()) < 86_400, "a day of suspend would be a lot"


def test_this_hosts_log_is_read_where_it_may_be() -> None:
    try:
        with open("/dev/kmsg", "rb"):
            pass
    except OSError as error:
        with pytest.raises(OSError, match=error.strerror or ""):
            list(HostLog().records())
        return
    records = list(HostLog().records())
    assert [record.sequence for record in records] == sorted({record.sequence for record in records})


@pytest.mark.image
def test_a_kernels_log_is_cleared_followed_and_levelled(kernel: Kernel) -> None:
    log = KernelLog(kernel)
    everything = log.records()
    assert everything[0].text.startswith("Linux version")
    assert "".join(lines(everything[:1], Style())).startswith("[    0.000000] Linux version")
    assert log.boot_time() > 1_500_000_000, "the board's clock is set"
    log.control(CLEAR)
    assert log.records() == []
    kernel.insmod(EXAMPLES / "hello.ko")
    shown = log.records()
    assert [record.text for record in shown] == [record.text for record in kernel.dmesg()]
    coming = log.follow(shown[-1].sequence)
    assert next(coming) == []
    kernel.rmmod("hello")
    assert "goodbye" in next(new for new in islice(coming, 3) if new)[-1].text
    log.control(CONSOLE_LEVEL, 3)
    assert kernel.read("/proc/sys/kernel/printk").split()[0] == b"3"
    with pytest.raises(KoboxError, match="EINVAL"):
        log.control(CONSOLE_LEVEL, 99)


def test_the_bare_kernels_log_can_be_cleared() -> None:
    with boot("bare") as kernel:
        log = KernelLog(kernel)
        kernel.insmod(EXAMPLES / "hello.ko")
        assert log.records()
        log.control(CLEAR)
        assert log.records() == []
        kernel.rmmod("hello")
        assert "goodbye" in log.records()[-1].text

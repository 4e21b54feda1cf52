"""The same records through util-linux's dmesg and through kobox's: the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kobox.cli import main
from needs import need_program

RECORDS = (
    "<6>[    0.000000] Linux version 6.1.0-56-amd64\n"
    "<5>[    0.000000] Command line: quiet ro\n"
    "<6>[    1.250000] usb 1-1: new device: found\n"
    "<4>[    1.250100] hello: module verification failed\n"
    "<3>[   12.000001] ext4: error at a: b\n"
    "second line: of it\n\tthird\n"
    "<1>[   12.500000] BUG: kernel NULL pointer dereference, address: 0000000000000028\n"
    "<0>[   12.500000] Oops: 0000 [#1]\n"
    "<2>[   12.500001] crit\n"
    "<30>[   75.123456] systemd[1]: started a thing with \x1b[1mcolour\x1b[0m\n"
    "<13>[   75.123456] user: a\tb \x7f\n"
    "<6>[   75.200000] \n"
    "<7>[ 3700.000000] segfault at 0 ip 0 sp 0 error 4 in é\u200b\n"
    "<6>no time at all\n"
    "<94>[99999.999999] ftp info\n"
    "<6>[100000.000000] six digits\n"
)

OPTIONS = [
    [], ["-t"], ["-x"], ["-r"], ["-d"], ["-e"], ["-T"], ["-d", "-T"], ["-d", "-t"], ["-x", "-T"], ["-H", "-P"],
    ["--time-format", "iso"], ["--time-format=delta"], ["--time-format", "reltime"], ["-x", "-e"], ["-p", "-x"],
    ["-l", "err"], ["-l", "warn,ERR,2"], ["--level=emerg"], ["-f", "daemon,user"], ["-k"], ["-u"], ["-k", "-l", "info"],
    ["-l", "err", "-d"], ["--noescape"], ["--noescape", "-r"], ["-L=always"], ["-Lalways", "-x"], ["-Lnever"],
    ["--color=always", "-e"], ["--color=always", "-t"], ["--color=always", "-d", "-l", "err,crit,alert,info"], ["-P"],
    ["-S"], ["-s", "16384"], ["-d", "--time-format", "iso"], ["-te"], ["-et"], ["--since", "2001-02-03 04:05:06"],
    ["--until", "2001-02-03 04:05"], ["--until=tomorrow"], ["--since", "yesterday"],
    ["--since", "2 days ago"], ["--until", "+1h 30min"], ["-x", "-l", "info", "-f", "11,3"],
]  # fmt: skip

ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "Europe/Prague", "TERM": "xterm"}


def real(*arguments: str) -> bytes:
    need_program("dmesg")
    # "-L=always" is an argument to getopt, "=always", which util-linux refuses: the long form is what it takes
    words = ["--color=always" if word == "-L=always" else word for word in arguments]
    ran = subprocess.run(["dmesg", *words], capture_output=True, env=ENVIRONMENT, check=True)
    return ran.stdout


@pytest.fixture
def kobox(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Kobox:
    import time

    monkeypatch.setenv("TZ", ENVIRONMENT["TZ"])
    time.tzset()
    yield Kobox(capfdbinary)
    monkeypatch.undo()
    time.tzset()


class Kobox:
    """``kobox dmesg`` in this process; its output as bytes."""

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str) -> bytes:
        import sys

        assert main(["dmesg", *arguments]) == 0
        sys.stdout.flush()
        return self._capture.readouterr().out


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_a_log_is_shown_as_util_linux_shows_it(options: list[str], kobox: Kobox, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(RECORDS)
    words = ["--color=always" if word == "-L=always" else word for word in options]
    assert kobox(*words, "-F", str(log)) == real(*options, "-F", str(log))


TEXT = st.text(st.characters(codec="utf-8", max_codepoint=0x2FF, exclude_characters="\0"), min_size=1, max_size=60)
"""A NUL ends a buffer; of a text that begins as a time does ("[1"), util-linux keeps the seconds."""
PRIORITIES = st.integers(0, 95)
"""Of the facilities that 2.38 has a name for; later ones know 24."""


def _record(priority: int, time: int | None, text: str) -> str:
    stamp = f"[{time // 1_000_000:5}.{time % 1_000_000:06}] " if time is not None else ""
    return f"<{priority}>{stamp}{text}"


LOGS = st.lists(
    st.builds(
        _record,
        PRIORITIES,
        st.none() | st.integers(0, 10**13),
        TEXT.filter(lambda text: text.strip() and text[0] != "["),
    ),
    min_size=1,
    max_size=8,
)


@given(
    LOGS, st.sampled_from([[], ["-x"], ["-d"], ["-e"], ["-T"], ["-L"], ["--color=always"], ["-r"], ["-l", "err,info"]])
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_log_is_shown_as_util_linux_shows_it(
    kobox: Kobox, tmp_path: Path, records: list[str], options: list[str]
) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(records) + "\n", newline="")
    assert kobox(*options, "-F", str(log)) == real(*options, "-F", str(log))


@pytest.mark.parametrize(
    "options", [["-J"], ["-J", "-x"], ["-J", "-t"], ["-J", "-r"], ["-J", "-l", "err"]], ids=" ".join
)
def test_each_record_as_json_is_util_linuxs(options: list[str], kobox: Kobox, tmp_path: Path) -> None:
    """One record a file: with several, 2.38 takes the rest of the file for each one's text. For another facility than
    the kernel's it adds up the priority without its place (3 | 6 for <30>)."""
    log = tmp_path / "log"
    for record in RECORDS.removesuffix("\n").replace("\n<", "\0<").split("\0"):
        log.write_text(record)
        theirs = real(*options, "-F", str(log))
        ours = kobox(*options, "-F", str(log))
        if not theirs:
            assert json.loads(ours) == {"dmesg": []}
            continue
        priority = int(record[1 : record.index(">")])
        wrong = f'"pri": {priority >> 3 | priority & 7}'.encode()
        assert ours == theirs.replace(wrong, f'"pri": {priority}'.encode())


def test_several_records_as_json_are_a_list(kobox: Kobox, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(RECORDS)
    rows = json.loads(kobox("--json", "-F", str(log)))["dmesg"]
    assert len(rows) == RECORDS.count("<") - 1, "all but the empty one"
    assert rows[2] == {"pri": 6, "time": 1.25, "msg": "usb 1-1: new device: found"}


def test_json_that_dmesg_wrote_is_read_again(kobox: Kobox, tmp_path: Path) -> None:
    log, saved = tmp_path / "log", tmp_path / "saved"
    log.write_text(RECORDS.replace("<6>no time at all\n", "").replace("<6>[   75.200000] \n", ""))
    for options in ([], ["-x"]):
        saved.write_bytes(kobox("--json", *options, "-F", str(log)))
        assert kobox("-x", "-F", str(saved)) == kobox("-x", "-F", str(log))

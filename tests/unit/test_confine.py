"""What a process that confined itself can no longer do. Each test confines a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kobox.confine import DENIED, filter_program

BEFORE = "import os, socket, sys\nfrom kobox.confine import confine\ndone = confine()\n"


def confined(code: str, folder: object = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + code], capture_output=True, text=True, check=False, cwd=folder, timeout=60
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def attempt(what: str) -> str:
    return f"try:\n    {what}\n    print('did it')\nexcept OSError as error:\n    print(error.strerror)\n"


@pytest.mark.parametrize(
    "what", ["os.execv('/bin/true', ['true'])", "socket.socket()", "os.unshare(0x10000000)", "os.chroot('/')"]
)
def test_what_emulation_never_needs_is_refused(what: str) -> None:
    if "unshare" in what and sys.version_info < (3, 12):
        what = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)"
        code = f"{what}\nassert libc.unshare(0x10000000) == -1\nprint(os.strerror(ctypes.get_errno()))"
        assert confined(code) == "Operation not permitted\n"
        return
    assert confined(attempt(what)) in ("Operation not permitted\n", "Permission denied\n")


def test_files_are_read_and_where_the_host_has_landlock_not_written(tmp_path) -> None:
    code = "print(len(open('/proc/self/status').read()) > 0)\nprint(any('landlock' in one for one in done.layers))\n"
    said = confined(code + attempt("open('new', 'w')"), tmp_path).splitlines()
    assert said[0] == "True"
    assert said[2] == ("Permission denied" if said[1] == "True" else "did it")


def test_the_kernel_says_that_it_holds() -> None:
    code = "print(open('/proc/self/status').read())\nprint(done)"
    said = confined(code)
    facts = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert int(facts["CapEff"], 16) == 0
    assert "layers=('limits', 'no new privileges', 'no capabilities'" in said


def test_the_filter_jumps_to_where_it_says() -> None:
    program = filter_program((1, 2, 3))
    assert len(program) == 8 * (5 + 3 + 2)
    assert len(filter_program(tuple(DENIED.values()))) // 8 < 256  # a jump's distance is a byte

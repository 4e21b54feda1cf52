"""``kobox shell`` and ``kobox dmesg`` on the kernel of a session: what one client does, the other sees."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kobox.cli import main
from paths import EXAMPLES

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def session(kobox_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One session, in a runtime directory of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        assert main(["boot", "--name", "k1", "--image", kobox_image]) == 0
        yield "k1"
        main(["halt", "--session", "k1"])


def kobox(*words: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "kobox", *words]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_what_a_shell_loads_stays_in_the_session(session: str) -> None:
    hello = EXAMPLES / "hello.ko"
    assert kobox("shell", "-c", f"insmod {hello} my_param=5 && cat /sys/module/hello/parameters/my_param") == (
        0,
        "5\n",
        "",
    )
    assert (
        kobox("shell", "--session", session, "-c", "lsmod | grep -c hello; rmmod hello; lsmod | wc -l")[1] == "1\n1\n"
    )
    assert "goodbye" in kobox("dmesg", "--session", session)[1].splitlines()[-1]


def test_modprobe_finds_the_sessions_modules(session: str) -> None:
    code, out, err = kobox(
        "shell", "-c", "modprobe bonding && cat /sys/class/net/bonding_masters; modprobe -r bonding; lsmod | wc -l"
    )
    assert (code, out, err) == (0, "bond0\n1\n", "")


def test_the_log_is_cleared_and_levelled_for_everybody(session: str) -> None:
    assert kobox("dmesg", "-C")[0] == 0
    assert kobox("dmesg")[1] == ""
    assert kobox("shell", "-c", "dmesg -n 3; cat /proc/sys/kernel/printk")[1].split()[0] == "3"


def test_the_log_is_followed_while_another_client_works(session: str, tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "kobox", "dmesg", "-W", "-t"]
    with open(tmp_path / "seen", "wb") as file, subprocess.Popen(command, stdout=file) as follower:
        deadline = time.monotonic() + 60
        seen = b""
        while b"hello: goodbye" not in seen and time.monotonic() < deadline:
            kobox("shell", "-c", f"insmod {EXAMPLES}/hello.ko; rmmod hello")
            seen = (tmp_path / "seen").read_bytes()
        follower.terminate()
    lines = seen.decode().splitlines()
    assert any(line.startswith("hello: hello, world") for line in lines)
    assert len([line for line in lines if "goodbye" in line]) <= len([line for line in lines if "hello, world" in line])


def test_a_shell_that_reboots_leaves_the_session_fresh(session: str) -> None:
    code, out, _ = kobox("shell", "-c", f"insmod {EXAMPLES}/hello.ko; reboot; lsmod | wc -l; dmesg | grep -c hello")
    assert (code, out) == (1, "1\n0\n")

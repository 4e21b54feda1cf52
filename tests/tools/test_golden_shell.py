"""The shell of recorded steps: what it understands, and what makes a case wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.golden_files import Unavailable
from tools.golden_shell import Shell, commands_of

import kobox

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def shell(debian_root: Path) -> Iterator[Shell]:
    with kobox.boot(debian_root, root=debian_root) as kernel:
        yield Shell(kernel)


def test_a_line_is_commands_pipelines_and_redirections() -> None:
    assert list(commands_of('echo "a; b" > /x; cut -d" " -f1 /y | sort')) == [
        [["echo", "a; b", ">", "/x"]],
        [["cut", "-d ", "-f1", "/y"], ["sort"]],
    ]


def test_files_are_the_guests(shell: Shell) -> None:
    assert shell.run("mkdir -p /tmp/m/n; echo two one > /tmp/f; cut -d' ' -f2 /tmp/f") == b"one\n"
    assert shell.kernel.read("/tmp/f") == b"two one\n"
    assert [entry.name for entry in shell.kernel.ls("/tmp/m")] == ["n"]


def test_the_status_of_the_last_command_can_be_shown(shell: Shell) -> None:
    said = shell.run("mount -t nosuch none /root; echo rc=$?; echo rc=$?")
    assert said == b"mount: mounting none on /root failed: No such device\nrc=255\nrc=0\n"


def test_modprobe_plans_on_the_images_modules(shell: Shell) -> None:
    release = shell.kernel.release
    said = shell.run("modprobe -n -v rtnl-link-dummy").decode()
    assert said.startswith(f"insmod /lib/modules/{release}/kernel/drivers/net/dummy.ko")


def test_a_script_that_only_exits_can_stand_for_modprobe(shell: Shell) -> None:
    shell.run(
        'printf "#!/bin/sh\\nexit 5\\n" > /tmp/five; chmod 755 /tmp/five; echo /tmp/five > /proc/sys/kernel/modprobe'
    )
    scratch = shell.kernel.modules_room.loader.env.scratch
    assert shell.kernel.guest.call_int("__request_module", 1, scratch(b"dummy\0")) == 5 << 8


def test_a_program_that_is_not_known_makes_the_case_wait(shell: Shell) -> None:
    with pytest.raises(Unavailable, match="a shell with perl"):
        shell.run("perl -e 1")

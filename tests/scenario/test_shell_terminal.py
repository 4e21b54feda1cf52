"""``kobox shell`` at a real terminal, which tmux plays: completion, history, Ctrl-C, Ctrl-D, resize."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from needs import need_program
from paths import EXAMPLES

pytestmark = pytest.mark.image

PATIENCE = 90.0
"""Seconds to wait for a text: a machine that is busy with other tests is slow, and a failure waits once."""


class Terminal:
    """One tmux server with one window of 100 columns and 30 lines, in which kobox runs."""

    def __init__(self, socket: Path, environment: dict[str, str], command: list[str]) -> None:
        self._socket = socket
        self._environment = environment
        shown = " ".join(map(shlex.quote, command)) + "; echo status $?; exec cat"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", shown)

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-S", str(self._socket), *words]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Keys by tmux's names: ``Enter``, ``Tab``, ``Up``, ``C-c`` …"""
        self._tmux("send-keys", *keys)

    def run(self, line: str) -> None:
        self.type(line)
        self.press("Enter")

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))
        time.sleep(1.0)  # tmux waits a little before it tells the program, lest it tell it twice

    def screen(self) -> str:
        """The whole of what was shown, wrapped lines joined."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-")

    def wait(self, wanted: str | Callable[[str], bool]) -> str:
        """The screen as soon as a text (or what a function looks for) is there."""
        found = (lambda screen: wanted in screen) if isinstance(wanted, str) else wanted
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            screen = self.screen()
            if found(screen):
                return screen
            time.sleep(0.1)
        raise AssertionError(f"{wanted!r} was not shown:\n{self.screen()}")

    def wait_for_prompt(self, count: int) -> str:
        """Until so many prompts were shown and the last of them waits."""
        return self.wait(lambda screen: len(PROMPT.findall(screen)) >= count and screen.rstrip().endswith("#"))

    def close(self) -> None:
        subprocess.run(["tmux", "-S", str(self._socket), "kill-server"], capture_output=True, check=False)


PROMPT = re.compile(r"^\S+:/\S*# ?", re.MULTILINE)


@pytest.fixture
def open_shell(kobox_image: str, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    need_program("tmux")
    opened: list[Terminal] = []
    environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
    environment |= {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
        "INPUTRC": "/dev/null",
    }

    def open(*options: str) -> Terminal:
        command = [sys.executable, "-m", "kobox", "shell", "--image", kobox_image, *options]
        opened.append(Terminal(tmp_path / f"tmux{len(opened)}", environment, command))
        opened[-1].wait_for_prompt(1)
        return opened[-1]

    yield open
    for terminal in opened:
        terminal.close()


@pytest.fixture
def terminal(open_shell: Callable[..., Terminal]) -> Terminal:
    return open_shell()


def test_tab_completes_and_lists(terminal: Terminal) -> None:
    terminal.type("cat /proc/vers")
    terminal.press("Tab")
    terminal.wait("cat /proc/version ")
    terminal.press("Enter")
    terminal.wait("Linux version 6.")
    terminal.wait_for_prompt(2)
    terminal.type("ls /sys/bus/pci/d")
    terminal.press("Tab", "Tab")
    screen = terminal.wait("drivers_autoprobe")
    assert re.search(r"^devices/ +drivers/ +drivers_autoprobe", screen, re.MULTILINE), "names without their folder"
    assert screen.rstrip().endswith("# ls /sys/bus/pci/d"), "the line is there again"
    terminal.type("ri")
    terminal.press("Tab")
    terminal.wait("ls /sys/bus/pci/drivers")


def test_modules_and_their_parameters_are_completed(terminal: Terminal) -> None:
    terminal.type("modprobe bondi")
    terminal.press("Tab")
    terminal.wait("modprobe bonding ")
    terminal.type("miim")
    terminal.press("Tab")
    terminal.wait("modprobe bonding miimon=")
    terminal.type("100")
    terminal.press("Enter")
    terminal.wait("MII link monitoring set to 100 ms")
    terminal.wait_for_prompt(2)
    terminal.type("rmmod bo")
    terminal.press("Tab", "Enter")
    terminal.wait_for_prompt(3)
    terminal.run("lsmod | wc -l")
    terminal.wait("\n2\n")
    terminal.type(f"insmod {EXAMPLES}/hell")
    terminal.press("Tab")
    terminal.wait("/hello.ko")
    terminal.type("my_p")
    terminal.press("Tab")
    terminal.wait("/hello.ko my_param=")


def test_history_is_kept_from_one_shell_to_the_next(open_shell: Callable[..., Terminal], tmp_path: Path) -> None:
    first = open_shell()
    first.run("echo first thing")
    first.wait("\nfirst thing")
    first.run("echo second thing")
    first.wait("\nsecond thing")
    first.press("Up", "Up", "Enter")
    first.wait(lambda screen: screen.count("\nfirst thing") == 2)
    first.press("C-d")
    first.wait("status 0")
    history = tmp_path / "state/kobox/shell_history"
    assert history.read_text().splitlines() == ["echo first thing", "echo second thing", "echo first thing"]
    assert history.stat().st_mode & 0o777 == 0o600
    second = open_shell()
    second.press("C-r")
    second.type("second")
    second.wait("echo second thing")
    second.press("Enter")
    second.wait("\nsecond thing")


def test_a_history_that_cannot_be_kept_is_said_once(open_shell: Callable[..., Terminal], tmp_path: Path) -> None:
    (tmp_path / "state/kobox/shell_history").mkdir(parents=True)
    terminal = open_shell()
    terminal.run("echo on")
    terminal.wait("\non\n")
    screen = terminal.wait_for_prompt(2)
    assert screen.count("the history is not kept") == 1


def test_ctrl_c_at_the_prompt_drops_the_line(terminal: Terminal) -> None:
    terminal.type("echo never")
    terminal.press("C-c")
    terminal.wait_for_prompt(2)
    terminal.run("echo $?")
    terminal.wait("\n130\n")
    assert "\nnever" not in terminal.screen()


def test_ctrl_c_ends_a_read_that_waits_in_the_kernel(terminal: Terminal) -> None:
    terminal.run("cat /dev/kmsg")
    time.sleep(1.5)
    terminal.press("C-c")
    terminal.wait_for_prompt(2)
    terminal.run("echo $? and on; uname -r")
    terminal.wait("\n130 and on\n6.")


def test_ctrl_c_ends_a_module_that_spins(terminal: Terminal) -> None:
    terminal.run(f"dmesg -D; insmod {EXAMPLES}/hostile/spin.ko")
    time.sleep(1.5)
    terminal.press("C-c")
    terminal.wait_for_prompt(2)
    terminal.run("echo $? and on; dmesg | grep -c 'round and round'")
    terminal.wait("\n130 and on\n1\n")


@pytest.mark.parametrize("line", ["sleep 1000000", "dmesg -W", "cat /dev/zero > /dev/null"])
def test_ctrl_c_ends_what_goes_on_for_ever(line: str, terminal: Terminal) -> None:
    terminal.run(line)
    time.sleep(1.5)
    terminal.press("C-c")
    terminal.wait_for_prompt(2)
    terminal.run("echo $? and on")
    terminal.wait("\n130 and on\n")


def test_ctrl_d_leaves_with_the_last_status(terminal: Terminal) -> None:
    terminal.run("false")
    terminal.wait_for_prompt(2)
    terminal.press("C-d")
    terminal.wait("exit\nstatus 1\n")


def test_a_quote_that_is_open_goes_on_in_the_next_line(terminal: Terminal) -> None:
    terminal.run("echo 'one")
    terminal.wait("\n> ")
    terminal.run("two'")
    terminal.wait("\none\ntwo\n")
    terminal.wait_for_prompt(2)
    terminal.run("echo |")
    terminal.wait(lambda screen: screen.rstrip().endswith("\n>"))
    terminal.press("C-d")
    terminal.wait("kobox shell: the line was not complete")
    terminal.wait_for_prompt(3)


def test_a_window_that_changes_its_size_leaves_line_and_columns_right(terminal: Terminal) -> None:
    terminal.type("echo " + "word " * 12 + "end")
    terminal.wait("word end")
    terminal.resize(50, 20)
    terminal.press("C-a")
    terminal.type("echo first; ")
    terminal.press("C-e")
    terminal.type("ed")
    terminal.resize(70, 24)
    terminal.press("Enter")
    terminal.wait(f"\nfirst\n{'word ' * 12}ended\n")
    terminal.wait_for_prompt(2)
    terminal.run("ls /sys/class; echo done")
    screen = terminal.wait("\ndone\n")
    listed = re.search(r"echo done\s*\n(.*?)\ndone\n", screen, re.DOTALL)
    assert listed is not None, screen
    widths = [len(line.rstrip()) for line in listed[1].splitlines()]
    assert len(widths) > 1, screen
    assert 35 < max(widths) <= 70, f"as wide as the window is now: {screen}"


def test_the_console_shows_what_the_kernel_says_unless_it_is_off(terminal: Terminal) -> None:
    terminal.run(f"insmod {EXAMPLES}/hello.ko my_param=3")
    terminal.wait("] hello: my_param is 3")
    terminal.wait_for_prompt(2)
    terminal.run("dmesg -n err; rmmod hello; echo silent")
    screen = terminal.wait("\nsilent\n")
    assert "goodbye" not in screen

"""The kernel's console beside a shell: what the log gains while a command runs, as far as the console's level goes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kobox.cli import colour
from kobox.dmesg import Style, lines
from kobox.errors import KoboxError

if TYPE_CHECKING:
    from kobox.shell import ShellKernel

_USUAL_LEVEL = 7


class Console:
    """Messages below ``console_loglevel``, on standard error. ``dmesg -n``, ``-D`` and ``-E`` set that level."""

    def __init__(self, kernel: ShellKernel, on: bool) -> None:
        self._kernel, self._on = kernel, on
        self._style = Style(color=colour.wanted(sys.stderr))
        log = kernel.dmesg() if on else []
        self._seen = log[-1].sequence if log else -1

    def show(self) -> None:
        """Print what is new."""
        if not self._on:
            return
        try:
            log = self._kernel.dmesg()
            if log and log[-1].sequence < self._seen:  # it was rebooted, and its numbers began anew
                self._seen = -1
            new = [record for record in log if record.sequence > self._seen]
            if not new:
                return
            self._seen = new[-1].sequence
            level = self._level()
        except KoboxError:  # a kernel that is gone: the command's own message says so
            return
        shown = lines((record for record in new if record.level < level), self._style)
        sys.stderr.write("".join(shown))
        sys.stderr.flush()

    def _level(self) -> int:
        try:
            return int(self._kernel.read("/proc/sys/kernel/printk").split()[0])
        except (KoboxError, ValueError, IndexError):
            return _USUAL_LEVEL

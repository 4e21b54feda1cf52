"""The files of tracefs, through the guest's own VFS, and the kernel's two trace arrays: its own and kobox's instance.

Functions are traced by the kernel's own array, events and probes by an instance, so that their text can be read apart.
Switching an array on and off is a plain call, so that reading a trace leaves no traces in it.
"""

from __future__ import annotations

from kobox.errors import Errno, NotModelled, UsageError
from kobox.kernel.files import Files
from kobox.kernel.guest import Guest
from kobox.kernel.syscalls import AT_FDCWD, O_NONBLOCK, O_RDONLY, O_TRUNC, O_WRONLY, Syscalls

ROOT = "/sys/kernel/tracing/"
INSTANCE = "instances/kobox/"
_EAGAIN, _ENOENT = 11, 2
_ARRAYS_LIMIT = 1000


class Tracefs:
    """Paths are relative to the root of tracefs."""

    def __init__(self, guest: Guest, files: Files, syscalls: Syscalls) -> None:
        self._guest, self._files, self._sys = guest, files, syscalls
        if not self.has("current_tracer"):
            raise NotModelled(
                f"kernel {guest.image.release} has no tracefs in {ROOT}", hint="an image built with CONFIG_FTRACE"
            )

    def has(self, path: str) -> bool:
        try:
            self._files.status(ROOT + path)
        except Errno as refusal:
            if refusal.number == _ENOENT:
                return False
            raise
        return True

    def read(self, path: str) -> str:
        return self._files.read(ROOT + path).decode("utf-8", "replace")

    def write(self, path: str, text: str) -> None:
        self._files.write(ROOT + path, text.encode())

    def clear(self, path: str) -> None:
        """Open for writing with truncation, which empties a trace or a list."""
        self._files.close(self._files.open(ROOT + path, O_WRONLY | O_TRUNC))

    def names(self, path: str) -> list[str]:
        """Folders in a folder."""
        return [entry.name for entry in self._files.list(ROOT + path) if entry.kind == "dir"]

    def define(self, line: str) -> None:
        """One line for ``kprobe_events``; what the kernel has against it is said in its own words."""
        try:
            self.write("kprobe_events", line + "\n")
        except Errno as refusal:
            log = [text.strip() for text in self.read("error_log").splitlines() if "error:" in text]
            why = log[-1].partition("error: ")[2] if log else str(refusal)
            raise UsageError(f"the kernel refused the probe {line!r}: {why}") from refusal

    def make_instance(self) -> None:
        if not self.has(INSTANCE):
            self._sys.window.clear()
            path = self._sys.window.text(ROOT + INSTANCE.rstrip("/"))
            self._sys.checked("mkdir", "mkdirat", AT_FDCWD, path, 0o755)

    def remove_instance(self) -> None:
        self._sys.window.clear()
        path = self._sys.window.text(ROOT + INSTANCE.rstrip("/"))
        self._sys.checked("rmdir", "rmdir", path)

    def pages(self, folder: str, size: int) -> list[bytes]:
        """Take everything out of the one CPU's buffer of an array, page by page."""
        descriptor = self._files.open(f"{ROOT}{folder}per_cpu/cpu0/trace_pipe_raw", O_RDONLY | O_NONBLOCK)
        pages = []
        try:
            while page := self._files.read_from(descriptor, size):
                pages.append(page)
        except Errno as refusal:
            if refusal.number != _EAGAIN:
                raise
        finally:
            self._files.close(descriptor)
        return pages

    def switch(self, on: bool) -> None:
        """Let the arrays record, or not."""
        function = "tracer_tracing_on" if on else "tracer_tracing_off"
        for array in arrays_of(self._guest):
            self._guest.call(function, array)


def arrays_of(guest: Guest) -> list[int]:
    """Addresses of the kernel's own ``struct trace_array``, and of the instance's where it was made."""
    arrays = [guest.symbol("global_trace")]
    head, offset = guest.symbol("ftrace_trace_arrays"), guest.layouts.offset("trace_array", "list")
    at = guest.read_uint(head)
    for _ in range(_ARRAYS_LIMIT):
        if at == head:
            break
        array = guest.view("trace_array", at - offset)
        name = array["name"] & (1 << 64) - 1
        if name and guest.read_cstr(name, 64) == b"kobox":
            arrays.append(array.address)
        at = guest.read_uint(at)
    return arrays

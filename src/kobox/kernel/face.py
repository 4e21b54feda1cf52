"""What every kernel of kobox offers on top of a few calls of its own: files, modules by name, loads that raise."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kobox.errors import Errno, NotModelled
from kobox.kernel.modules import Module, ModuleRecord, parse_proc_modules

if TYPE_CHECKING:
    from kobox.kernel.files import DirEntry

O_NONBLOCK, O_TRUNC = 0o4000, 0o1000


class KernelFace(ABC):
    """The part of a kernel's public face that is the same for an image and for the bare kernel."""

    guest: Any
    files: Any

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def interrupt(self, wanted: bool = True) -> Any:
        """End the call that runs now, or the next one; from any thread, or from a signal's handler.

        First as a signal to the guest's task would: an interruptible sleep answers EINTR. What pays no heed is stopped
        by force and dies. Not ``wanted``: take it back, which whoever makes a call for somebody does before it.
        """

    @abstractmethod
    def start_load(self, data: bytes, parameters: str = "", flags: int = 0) -> Any: ...

    @abstractmethod
    def finish_load(self, operation: Any) -> int: ...

    @abstractmethod
    def delete_module(self, name: str, flags: int) -> int: ...

    def syslog(self, action: int, value: int = 0) -> int:
        """``syslog(2)`` without a buffer: clear the log (5), console off, on, at a level (6, 7, 8)."""
        raise NotModelled("the log and the console of this kernel cannot be changed from here")

    def log_start(self) -> int:
        """Sequence number of the first record that was not cleared; of the next one where there is none."""
        return 0

    # -- modules --------------------------------------------------------------------------------------------------

    @property
    def module_files(self) -> dict[str, str]:
        """The file that each module was last loaded from, by name: where its debug data is."""
        files: dict[str, str] = self.__dict__.setdefault("_module_files", {})
        return files

    def insmod(self, module: str | os.PathLike[str] | bytes, /, *, flags: int = 0, **parameters: object) -> Module:
        """Load one module file (or its bytes); ``Errno`` says why not. Dependencies must be loaded already.

        ``flags``: 1 ignores symbol versions, 2 the version magic, as ``finit_module`` takes them.
        """
        from kobox.ko import parse_module, read_module

        found = parse_module(module, "module") if isinstance(module, bytes) else read_module(module)
        if not isinstance(module, bytes):
            self.module_files[found.name] = os.fspath(module)
        self.init_module(bytes(found.data), parameter_text(parameters), flags)
        return self.module(found.name)

    def init_module(self, data: bytes, parameters: str = "", flags: int = 0) -> None:
        """Load a module's bytes as the system call would; ``Errno`` carries the kernel's number."""
        result = self.finish_load(self.start_load(data, parameters, flags))
        if result < 0:
            raise Errno(-result, "the module was not loaded")

    def rmmod(self, name: str, *, force: bool = False) -> None:
        """Unload a module; ``Errno`` says why not."""
        result = self.delete_module(name, O_NONBLOCK | (O_TRUNC if force else 0))
        if result < 0:
            raise Errno(-result, f"module {name} was not unloaded")

    def module(self, name: str) -> Module:
        """A handle on a module by name, loaded or not."""
        return Module(self.files, name.replace("-", "_"))

    @property
    def modules(self) -> list[ModuleRecord]:
        """What ``/proc/modules`` lists, newest first."""
        return parse_proc_modules(self.files.read("/proc/modules").decode("latin-1"))

    # -- files ----------------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """A file of the kernel's tree."""
        data: bytes = self.files.read(path)
        return data

    def write(self, path: str, data: bytes | str) -> int:
        """Write to a file of the kernel's tree, in one call."""
        count: int = self.files.write(path, data.encode() if isinstance(data, str) else data)
        return count

    def ls(self, path: str) -> list[DirEntry]:
        entries: list[DirEntry] = self.files.list(path)
        return entries

    def trace(self, *functions: str, **options: Any) -> Any:
        """Trace a block of calls (see docs/trace.md); a kernel without a tracer says so."""
        raise NotModelled(
            "this kernel has no tracer that can be driven from here", hint="an image has one: kobox kernel add --debian"
        )


def parameter_text(parameters: Mapping[str, object]) -> str:
    """Python values as the words of a command line: True as Y, lists with commas, blanks in quotes."""
    return " ".join(_parameter(name, value) for name, value in parameters.items())


def _parameter(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{name}={'Y' if value else 'N'}"
    if isinstance(value, (list, tuple)):
        return f"{name}={','.join(str(item) for item in value)}"
    text = str(value)
    return f'{name}="{text}"' if " " in text else f"{name}={text}"

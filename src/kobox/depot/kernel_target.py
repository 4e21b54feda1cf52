"""A running kobox kernel as a target for plans, known only by what it must be able to do.

Install and remove commands are programs of the system that the modules come from. They are not run here: what is known
to do nothing (``/bin/false``) is answered, anything else is refused by name, unless the caller says how to run it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from errno import ENOENT
from typing import Protocol

from kobox.depot.commands import FAILS, UNKNOWN, command_effect
from kobox.depot.targets import Loaded
from kobox.errors import Errno, NotModelled

_STATES = {"loading": "coming", "unloading": "going"}


class ListedModule(Protocol):
    """A line of /proc/modules."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def refcount(self) -> int: ...
    @property
    def users(self) -> tuple[str, ...]: ...
    @property
    def state(self) -> str: ...


class RunningKernel(Protocol):
    """The part of the front door's kernel that is used here."""

    @property
    def modules(self) -> Iterable[ListedModule]: ...
    def init_module(self, data: bytes, parameters: str = "", flags: int = 0) -> None: ...
    def delete_module(self, name: str, flags: int) -> int: ...


class KernelTarget:
    """Loads into ``kernel``. ``run`` gets a command and its environment and returns its exit status."""

    def __init__(self, kernel: RunningKernel, run: Callable[[str, Mapping[str, str]], int] | None = None) -> None:
        self.kernel = kernel
        self._run = run

    def loaded(self) -> Mapping[str, Loaded]:
        return {
            module.name: Loaded(
                module.name, _STATES.get(module.state, module.state), module.refcount, module.size, module.users
            )
            for module in self.kernel.modules
        }

    def insert(self, path: str, options: str, flags: int) -> None:
        from kobox.ko import decompress

        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise Errno(error.errno or ENOENT, path) from error
        self.kernel.init_module(bytes(decompress(data, path)), options, flags)

    def explain(self) -> str:
        """Why the last load was refused, in the loader's words; empty where a kernel does not tell."""
        tell: Callable[[], str] = getattr(self.kernel, "explain_last_load", lambda: "")
        return tell()

    def remove(self, name: str, flags: int) -> None:
        result = self.kernel.delete_module(name, flags)
        if result < 0:
            raise Errno(-result, f"module {name} was not unloaded")

    def run_command(self, command: str, environment: Mapping[str, str]) -> int:
        if self._run is not None:
            return self._run(command, environment)
        effect = command_effect(command)
        if effect == UNKNOWN:
            raise NotModelled(
                f"the command {command!r} of the configuration is not run", hint="-i passes over commands"
            )
        return int(effect == FAILS)

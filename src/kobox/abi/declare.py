"""How an adopted kernel function is declared: a typed Python function in a table named after a kernel header.

The signature is the single truth: it is checked when the table is filled (refuse at import), it drives marshalling,
and the C prototype is rendered from it. A stub goes through ``stub`` with a reason, so that it can never hide as a
function.
"""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from kobox.abi.c import CType

Calls = Generator[tuple[int, ...], int, Any]
"""A handler that calls guest code: it yields ``(function, argument, …)``, is sent the result, and returns the
answer."""


class Fidelity(enum.Enum):
    """How near to the real function: FULL, MODEL (differences in its docstring), STUB (answers a constant)."""

    FULL = "full"
    MODEL = "model"
    STUB = "stub"


class Declared(NamedTuple):
    """One adopted function. ``returns`` is None for void; ``why`` is set for stubs."""

    name: str
    header: str
    function: Callable[..., Any]
    parameters: tuple[tuple[str, CType], ...]
    returns: CType | None
    fidelity: Fidelity
    gpl: bool = False
    why: str = ""
    also: tuple[str, ...] = ()
    """Other kernel names with the same meaning and arguments; each that exists is adopted."""

    @property
    def prototype(self) -> str:
        """The C prototype, rendered from the signature."""
        shown = ", ".join(f"{ctype.name} {name}".replace("* ", "*") for name, ctype in self.parameters)
        return f"{self.returns.name if self.returns else 'void'} {self.name}({shown or 'void'})".replace("* ", "*")

    def encode(self, value: object) -> int | None:
        """The register value of a handler's answer. Refuses what C would not mean: a bool for an int, a missing
        value."""
        if self.returns is None:
            if value is not None:
                raise TypeError(f"{self.name}: void, but its handler returned {value!r}")
            return None
        if isinstance(value, bool) and self.returns.name != "bool":
            raise TypeError(f"{self.name}: returns {self.returns.name}, but its handler returned a bool")
        if not isinstance(value, int):
            raise TypeError(f"{self.name}: returns {self.returns.name}, but its handler returned {value!r}")
        return self.returns.encode(int(value))


class ExportTable:
    """Functions of one kernel header, in the order of their declaration."""

    def __init__(self, header: str) -> None:
        self.header = header
        self._declared: dict[str, Declared] = {}

    def __iter__(self) -> Iterator[Declared]:
        return iter(self._declared.values())

    def __getitem__(self, name: str) -> Declared:
        return self._declared[name]

    def export(
        self, *, fidelity: Fidelity = Fidelity.FULL, gpl: bool = False, also: tuple[str, ...] = ()
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function under its own name."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._add(function, fidelity, gpl, "", also)
            return function

        return register

    def stub(
        self, *, returns: int | None, why: str, gpl: bool = False, also: tuple[str, ...] = ()
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function that only answers ``returns``; ``why`` is shown in reports."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            def answer(*_: Any) -> int | None:
                return returns

            answer.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
            answer.__annotations__ = function.__annotations__
            answer.__name__, answer.__module__ = function.__name__, function.__module__
            self._add(answer, Fidelity.STUB, gpl, why, also, function)
            return function

        return register

    def _add(
        self,
        function: Callable[..., Any],
        fidelity: Fidelity,
        gpl: bool,
        why: str,
        also: tuple[str, ...],
        described: Callable[..., Any] | None = None,
    ) -> None:
        name = function.__name__
        where = f"{self.header}: {name}"
        if name in self._declared:
            raise TypeError(f"{where}: declared twice")
        hints = typing.get_type_hints(described or function, include_extras=True)
        names = list(inspect.signature(function).parameters)
        if not names or names[0] != "k":
            raise TypeError(f"{where}: the first parameter must be k, the kernel")
        parameters = tuple((parameter, _ctype(hints, parameter, where)) for parameter in names[1:])
        if len(parameters) > 6 and not inspect.isgeneratorfunction(function):
            raise TypeError(f"{where}: more than six arguments need the stack, which is not modelled")
        if "return" not in hints:
            raise TypeError(f"{where}: no return type; write -> None for void")
        returns = None if hints["return"] is type(None) else _ctype(hints, "return", where)
        returns = None if returns is not None and not returns.size else returns
        self._declared[name] = Declared(name, self.header, function, parameters, returns, fidelity, gpl, why, also)


def _ctype(hints: dict[str, Any], name: str, where: str) -> CType:
    for mark in getattr(hints.get(name), "__metadata__", ()):
        if isinstance(mark, CType):
            return mark
    raise TypeError(f"{where}: {name} has no C type")

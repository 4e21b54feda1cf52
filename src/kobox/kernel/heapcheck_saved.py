"""The memory checker's state as plain data, so that a kernel in the middle of its life can be kept on disk.

Modules are kept as files, with the addresses they were linked to; everything that is derived from a file (its view, its
layout) is derived again. Traces name modules by number. What differs between two kobox versions is nobody's business
here: a saved kernel belongs to the code that saved it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from kobox import link
from kobox.kernel.heapcheck_gate import HeapGate, Linked
from kobox.kernel.heapcheck_records import (
    CacheFacts,
    Fault,
    HeapObject,
    HeapState,
    MemoryFault,
    ModuleCode,
    Placed,
    Pool,
    Trace,
)
from kobox.link import Rules

Store = Callable[[str, bytes], None]
Load = Callable[[str], bytes]
_OBJECT = ("address", "size", "redzone", "cache", "promised")
_FAULT = ("text", "address", "size", "module", "time", "offset", "count")
_CACHE = ("name", "size", "constructed", "fixed")


def save(gate: HeapGate, store: Store) -> dict[str, Any]:
    """Everything as JSON data; ``store(name, content)`` keeps the modules' files."""
    writer = _Writer(store)
    data: dict[str, Any] = {
        "enabled": gate.enabled,
        "linked": [writer.module(ModuleCode(*one[:5]), one.memory) for one in gate.linked.values()],
        "check": None,
    }
    if gate.check is not None:
        data["check"] = {"state": writer.state(gate.check.state), "placed": _placed_data(gate.check.placed())}
    return data | {"modules": writer.modules}


def resume(gate: HeapGate, data: dict[str, Any], load: Load, rules: Rules) -> None:
    """Put it back into a gate of another process, whose guest has the memory that belongs to it."""
    reader = _Reader(data["modules"], load, rules)
    gate.enabled = data["enabled"]
    gate.resume({code.name: _linked(code) for code in map(reader.module, data["linked"])})
    if data["check"] is not None:
        gate.opened().resume(reader.state(data["check"]["state"]), _placed(data["check"]["placed"]))


def _linked(code: ModuleCode) -> Linked:
    return Linked(code.name, code.view, code.layout, dict(code.bases), code.addresses, dict(code.memory))


class _Writer:
    """Gives numbers to modules as they are met."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers: dict[int, int] = {}
        self._met: list[ModuleCode] = []
        """What has a number stays alive, so that nothing else gets its identity."""
        self.modules: list[dict[str, Any]] = []

    def module(self, code: ModuleCode, memory: Any = None) -> int:
        number = self._numbers.get(id(code))
        if number is None:
            number = self._numbers[id(code)] = len(self.modules)
            self._met.append(code)
            regions = code.memory if memory is None else memory
            self.modules.append(
                {
                    "name": code.name,
                    "bases": dict(code.bases),
                    "addresses": list(code.addresses),
                    "versions": bool(code.view.index.vers),
                    "regions": list(regions),
                }
            )
            self._store(f"module-{number}.ko", bytes(code.view.data))
            for name, content in regions.items():
                self._store(f"module-{number}.{name}", bytes(content))
        return number

    def state(self, state: HeapState) -> dict[str, Any]:
        return {
            "objects": [self._object(one) for one in state.objects.values()],
            "quarantine": {
                pool.name: [self._object(one) for one in kept.values()] for pool, kept in state.quarantine.items()
            },
            "held": state.held,
            "caches": [
                [address, *(getattr(facts, name) for name in _CACHE)] for address, facts in state.caches.items()
            ],
            "pages": list(state.pages.items()),
            "faults": [self._fault(fault) for fault in state.faults],
            "codes": [self.module(code) for code in state.codes],
            "stubs": [[*key, address] for key, address in state.stubs.items()],
            "guarded": state.guarded,
        }

    def _object(self, one: HeapObject) -> dict[str, Any]:
        return {name: getattr(one, name) for name in _OBJECT} | {
            "pool": one.pool.name,
            "owner": self.module(one.owner),
            "allocated": self._trace(one.allocated),
            "freed": self._trace(one.freed),
            "kept": _text(one.kept),
        }

    def _fault(self, fault: MemoryFault) -> dict[str, Any]:
        return {name: getattr(fault, name) for name in _FAULT} | {
            "fault": fault.fault.name,
            "allocated": self._trace(fault.allocated),
            "freed": self._trace(fault.freed),
            "found": self._trace(fault.found),
        }

    def _trace(self, trace: Trace | None) -> list[Any] | None:
        if trace is None:
            return None
        return [trace.ip, trace.sp, trace.bp, _text(trace.stack), trace.time, [self.module(c) for c in trace.codes]]


class _Reader:
    """Makes each module once, however many traces name it."""

    def __init__(self, modules: list[dict[str, Any]], load: Load, rules: Rules) -> None:
        self._modules, self._load, self._rules = modules, load, rules
        self._made: dict[int, ModuleCode] = {}

    def module(self, number: int) -> ModuleCode:
        code = self._made.get(number)
        if code is None:
            said = self._modules[number]
            view = link.load_view(
                self._load(f"module-{number}.ko"), self._rules, ignore_modversions=not said["versions"]
            )
            layout = link.lay_out(view, self._rules)
            code = self._made[number] = ModuleCode(said["name"], view, layout, said["bases"], said["addresses"])
            code.memory = {name: bytearray(self._load(f"module-{number}.{name}")) for name in said["regions"]}
        return code

    def state(self, data: dict[str, Any]) -> HeapState:
        return HeapState(
            {one.address: one for one in map(self._object, data["objects"])},
            {
                Pool[pool]: {one.address: one for one in map(self._object, kept)}
                for pool, kept in data["quarantine"].items()
            },
            data["held"],
            {row[0]: CacheFacts(*row[1:]) for row in data["caches"]},
            dict(data["pages"]),
            [self._fault(fault) for fault in data["faults"]],
            tuple(self.module(number) for number in data["codes"]),
            {(name, module): address for name, module, address in data["stubs"]},
            data["guarded"],
        )

    def _object(self, data: dict[str, Any]) -> HeapObject:
        return HeapObject(
            pool=Pool[data["pool"]],
            owner=self.module(data["owner"]),
            allocated=self._some_trace(data["allocated"]),
            freed=self._trace(data["freed"]),
            kept=_bytes(data["kept"]),
            **{name: data[name] for name in _OBJECT},
        )

    def _fault(self, data: dict[str, Any]) -> MemoryFault:
        return MemoryFault(
            fault=Fault[data["fault"]],
            allocated=self._trace(data["allocated"]),
            freed=self._trace(data["freed"]),
            found=self._trace(data["found"]),
            **{name: data[name] for name in _FAULT},
        )

    def _some_trace(self, data: list[Any]) -> Trace:
        ip, sp, bp, stack, time, codes = data
        return Trace(ip, sp, bp, b64decode(stack), time, tuple(self.module(number) for number in codes))

    def _trace(self, data: list[Any] | None) -> Trace | None:
        return None if data is None else self._some_trace(data)


def _placed_data(placed: Placed) -> dict[str, Any]:
    return placed._asdict() | {"code": [[address, _text(code)] for address, code in placed.code.items()]}


def _placed(data: dict[str, Any]) -> Placed:
    return Placed(**data | {"code": {address: b64decode(code) for address, code in data["code"]}})


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)

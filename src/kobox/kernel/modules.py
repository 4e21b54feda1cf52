"""Modules that are loaded, as records read from the guest's own list and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from kobox.errors import Errno

if TYPE_CHECKING:
    from kobox.kernel.files import Files
    from kobox.kernel.guest import Guest, View

_STATES = ("live", "coming", "going", "unformed")


class ModuleRecord(NamedTuple):
    """One line of ``/proc/modules``. ``users``: modules that use it; ``[permanent]`` is told by ``permanent``."""

    name: str
    size: int
    refcount: int
    users: tuple[str, ...]
    state: str
    address: int
    taint: str
    permanent: bool = False


def parse_proc_modules(text: str) -> list[ModuleRecord]:
    """Records of a ``/proc/modules`` text, newest first as the kernel lists them."""
    records = []
    for line in text.splitlines():
        name, size, refcount, users, state, address, *rest = line.split()
        names = [user for user in users.rstrip(",").split(",") if user and user != "-"]
        records.append(
            ModuleRecord(
                name,
                int(size),
                int(refcount) if refcount.lstrip("-").isdigit() else 0,
                tuple(user for user in names if user != "[permanent]"),
                state.lower(),
                int(address, 16),
                rest[0].strip("()") if rest else "",
                "[permanent]" in names,
            )
        )
    return records


class Parameters(Mapping[str, str]):
    """``/sys/module/NAME/parameters``: reading and assigning go through the kernel's own files."""

    def __init__(self, files: Files, name: str) -> None:
        self._files = files
        self._folder = f"/sys/module/{name}/parameters"

    def __getitem__(self, key: str) -> str:
        try:
            return self._files.read(f"{self._folder}/{key}").decode("utf-8", "replace").rstrip("\n")
        except Errno as error:
            if error.number == 2:
                raise KeyError(key) from None
            raise

    def __setitem__(self, key: str, value: object) -> None:
        text = ("Y" if value else "N") if isinstance(value, bool) else str(value)
        self._files.write(f"{self._folder}/{key}", text.encode())

    def readable(self) -> Iterator[tuple[str, str]]:
        """Name and value of every parameter whose file may be read."""
        for name in self:
            try:
                yield name, self[name]
            except Errno as error:
                if error.number not in (1, 5, 13):  # EPERM, EIO, EACCES: a file that only takes writes
                    raise

    def __iter__(self) -> Iterator[str]:
        try:
            return iter(sorted(entry.name for entry in self._files.list(self._folder)))
        except Errno as error:
            if error.number == 2:
                return iter(())
            raise

    def __len__(self) -> int:
        return sum(1 for _ in iter(self))


class Module:
    """A loaded module by name. Every property asks the kernel anew."""

    def __init__(self, files: Files, name: str) -> None:
        self._files, self.name = files, name

    def __repr__(self) -> str:
        return f"<Module {self.name}>"

    @property
    def parameters(self) -> Parameters:
        return Parameters(self._files, self.name)

    @property
    def record(self) -> ModuleRecord:
        """Its line of ``/proc/modules``; ``Errno(ENOENT)`` when it is not loaded."""
        for record in parse_proc_modules(self._files.read("/proc/modules").decode("latin-1")):
            if record.name == self.name:
                return record
        raise Errno(2, f"module {self.name} is not loaded")

    @property
    def loaded(self) -> bool:
        listed = parse_proc_modules(self._files.read("/proc/modules").decode("latin-1"))
        return any(record.name == self.name for record in listed)

    @property
    def refcount(self) -> int:
        return int(self._text("refcnt"))

    @property
    def state(self) -> str:
        """live, coming or going."""
        return self._text("initstate")

    @property
    def taint(self) -> str:
        """Letters, as in ``/sys/module/NAME/taint``."""
        return self._text("taint")

    @property
    def size(self) -> int:
        """Bytes of its core (``coresize``)."""
        return int(self._text("coresize"))

    @property
    def holders(self) -> list[str]:
        return sorted(entry.name for entry in self._files.list(f"/sys/module/{self.name}/holders"))

    @property
    def sections(self) -> dict[str, int]:
        """Address of each section that sysfs lists."""
        folder = f"/sys/module/{self.name}/sections"
        return {
            entry.name: int(self._files.read(f"{folder}/{entry.name}").strip(), 16)
            for entry in self._files.list(folder)
        }

    def _text(self, name: str) -> str:
        return self._files.read(f"/sys/module/{self.name}/{name}").decode("latin-1").strip()


def module_views(guest: Guest) -> Iterator[View]:
    """``struct module`` of everything on the kernel's list, newest first."""
    head = guest.symbol("modules")
    link = guest.layouts.offset("module", "list")
    entry = guest.read_uint(head)
    while entry != head:
        view = guest.view("module", entry - link)
        yield view
        entry = guest.read_uint(entry)


def find_module(guest: Guest, name: str) -> View | None:
    """The module of that name, loaded or being loaded, but not unformed."""
    for view in module_views(guest):
        if view.text("name") == name and state_of(view) != "unformed":
            return view
    return None


def module_at(guest: Guest, address: int) -> str:
    """The name of the module whose code or data an address lies in; empty for none."""
    if guest.layouts.has("module", "core_layout"):
        regions: tuple[str, ...] = ("core_layout", "init_layout")
    else:
        regions = tuple(f"mem[{kind}]" for kind in guest.layouts.enum("mod_mem_type").values() if kind >= 0)
        regions = tuple(path for path in regions if guest.layouts.has("module", path))
    for view in module_views(guest):
        if any(0 <= address - view[f"{region}.base"] < view[f"{region}.size"] for region in regions):
            return view.text("name")
    return ""


def state_of(module: View) -> str:
    """live, coming, going or unformed."""
    return _STATES[module["state"]]

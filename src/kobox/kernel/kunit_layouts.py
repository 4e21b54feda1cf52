"""KUnit's structures in guest memory. A kernel without CONFIG_KUNIT does not describe them, so their layouts come from
the debug data of the module whose tests run: it was compiled with the same headers.

A structure that the module never looks into is missing there; ``struct kunit_resource`` may be, and then has a layout
of kobox's own, which nobody else sees.
"""

from __future__ import annotations

from collections.abc import Mapping

from kobox.abi.layout import MemberPlace, StructLayout
from kobox.errors import NotModelled
from kobox.kernel.guest import Guest

STRUCTS = (
    "kunit", "kunit_suite", "kunit_case", "kunit_resource", "kunit_loc", "kunit_unary_assert",
    "kunit_ptr_not_err_assert", "kunit_binary_assert", "kunit_binary_assert_text", "kunit_binary_ptr_assert",
    "kunit_binary_str_assert", "kunit_mem_assert",
)  # fmt: skip
"""What is looked for in the debug data."""

_OWN_RESOURCE = StructLayout(
    56,
    {
        name: MemberPlace(offset, size)
        for name, offset, size in (
            ("data", 0, 8), ("name", 8, 8), ("free", 16, 8), ("refcount", 24, 4), ("node", 32, 16),
            ("should_kfree", 48, 1),
        )
    },
)  # fmt: skip


class KunitLayouts:
    """Reads and writes members by name: ``get(address, "kunit.status")``."""

    def __init__(self, guest: Guest, found: Mapping[str, StructLayout]) -> None:
        self._guest = guest
        self._structs = {"kunit_resource": _OWN_RESOURCE, **found}

    def has(self, member: str) -> bool:
        struct, _, path = member.partition(".")
        return struct in self._structs and path in self._structs[struct].members

    def size(self, struct: str) -> int:
        return self._struct(struct).size

    def offset(self, member: str) -> int:
        return self._place(member).offset

    def get(self, address: int, member: str) -> int:
        """An unsigned number."""
        place = self._place(member)
        return self._guest.read_uint(address + place.offset, place.size)

    def set(self, address: int, member: str, value: int) -> None:
        place = self._place(member)
        self._guest.write_uint(address + place.offset, value, place.size)

    def text(self, address: int, member: str) -> str:
        """A ``char`` array, or what a ``char *`` points to; empty for NULL."""
        place = self._place(member)
        at = address + place.offset
        if place.size == 8:
            at = self._guest.read_uint(at)
        return self._guest.read_cstr(at).decode("utf-8", "surrogateescape") if at else ""

    def members(self, struct: str) -> Mapping[str, MemberPlace]:
        return self._struct(struct).members

    def _place(self, member: str) -> MemberPlace:
        struct, _, path = member.partition(".")
        found = self._struct(struct).members.get(path)
        if found is None:
            raise NotModelled(f"KUnit: struct {struct} of this module has no member {path}")
        return found

    def _struct(self, struct: str) -> StructLayout:
        found = self._structs.get(struct)
        if found is None:
            raise NotModelled(f"KUnit: the module's debug data has no struct {struct}")
        return found

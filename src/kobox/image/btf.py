"""BTF: the kernel's types by name, decoded one at a time as they are asked for.

A ``Btf`` lies over the raw bytes (the kernel's, in its mapped image, with tables in the cache; a module's, on its own).
A module's BTF is split: its type numbers and string offsets go on where its base's end. ``Type`` is one type with what
its kind has; a member's place is found through anonymous structs and unions, dotted paths and array elements.
Follows include/uapi/linux/btf.h.
"""

from __future__ import annotations

import mmap
import re
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple

from kobox.errors import BadFile, NotModelled
from kobox.image.index import Slots, build_slots, raw_of, text_of

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_ARRAY = struct.Struct("<III")
_PAIR = struct.Struct("<II")
_ENUM = struct.Struct("<Ii")
_ENUM_UNSIGNED = struct.Struct("<II")
_ENUM64 = struct.Struct("<III")
_MAGIC = 0xEB9F
_POINTER_SIZE = 8
_DEEPEST = 64
"""Types that refer on and on: more than these only in a damaged file."""
_STEP = re.compile(r"([A-Za-z_]\w*)|\[(\d+)\]")


class Kind(IntEnum):
    """Kinds of types, by the format's own numbers."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Bytes behind a type's three words: fixed, and per item.
_TRAILING = {
    Kind.INT: (4, 0),
    Kind.ARRAY: (12, 0),
    Kind.STRUCT: (0, 12),
    Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8),
    Kind.FUNC_PROTO: (0, 8),
    Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12),
    Kind.DECL_TAG: (4, 0),
    Kind.ENUM64: (0, 12),
}
_FIXED = tuple(12 + _TRAILING.get(Kind(kind), (0, 0))[0] for kind in range(20))
_EACH = tuple(_TRAILING.get(Kind(kind), (0, 0))[1] for kind in range(20))

_MODIFIERS = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
_COMPOSITE = frozenset({Kind.STRUCT, Kind.UNION})
_SIZED = frozenset({Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FLOAT, Kind.DATASEC})
_REFERRING = _MODIFIERS | {Kind.PTR, Kind.FUNC, Kind.VAR, Kind.FUNC_PROTO, Kind.DECL_TAG}
_KEYWORDS = {Kind.STRUCT: "struct", Kind.UNION: "union", Kind.ENUM: "enum", Kind.ENUM64: "enum"}
_QUALIFIERS = {Kind.VOLATILE: "volatile", Kind.CONST: "const", Kind.RESTRICT: "restrict"}


class Member(NamedTuple):
    """A member and where it lies in what it was asked of. ``bit_size`` is 0 unless it is a bit field, whose first bit
    is ``bit_offset`` bits into the struct; ``offset`` and ``size`` are bytes (a bit field's: its first byte's offset
    and its type's size)."""

    name: str
    type: Type
    bit_offset: int
    bit_size: int

    @property
    def offset(self) -> int:
        return self.bit_offset >> 3

    @property
    def size(self) -> int:
        return self.type.size


class Param(NamedTuple):
    """A function's parameter."""

    name: str
    type: Type


class Variable(NamedTuple):
    """A variable in a data section (BTF of the kernel describes per-CPU ones)."""

    name: str
    type: Type
    offset: int
    size: int


class Type:
    """One type. Made by ``Btf`` only; two asks for one number give the same object."""

    __slots__ = ("_at", "_info", "_members", "_places", "_word", "btf", "id", "kind", "name")

    def __init__(self, btf: Btf, number: int, at: int, name: str, info: int, word: int) -> None:
        self.btf, self.id, self.name = btf, number, name
        self.kind = Kind(info >> 24 & 0x1F)
        self._at, self._info, self._word = at, info, word
        self._members: tuple[Member, ...] | None = None
        self._places: dict[str, Member | None] = {}

    def __repr__(self) -> str:
        return f"<{self.declare()} #{self.id}>"

    @property
    def _count(self) -> int:
        return self._info & 0xFFFF

    @property
    def _flag(self) -> bool:
        return bool(self._info >> 31)

    # what a type refers to

    @property
    def target(self) -> Type:
        """What a pointer points to, a typedef or qualifier names, a variable's type, a function's prototype, what a
        prototype returns; an array's element."""
        if self.kind is Kind.ARRAY:
            return self.btf.type(_ARRAY.unpack_from(self.btf.data, self._at)[0])
        if self.kind not in _REFERRING:
            raise NotModelled(f"{self.declare()} refers to no type")
        return self.btf.type(self._word)

    def strip(self) -> Type:
        """The type behind typedefs and qualifiers."""
        found = self
        for _ in range(_DEEPEST):
            if found.kind not in _MODIFIERS:
                return found
            found = found.target
        raise self._endless()

    @property
    def size(self) -> int:
        """Bytes; 0 for void, functions, and a struct that is only declared."""
        found, count = self, 1
        for _ in range(_DEEPEST):
            if found.kind in _SIZED:
                return count * found._word
            if found.kind is Kind.PTR:
                return count * _POINTER_SIZE
            if found.kind is Kind.ARRAY:
                count *= found.count
            elif found.kind not in _MODIFIERS and found.kind is not Kind.VAR:
                return 0
            found = found.target
        raise self._endless()

    def untagged(self, *kinds: Kind) -> Type:
        """The type behind type tags, and behind the kinds given."""
        found = self
        for _ in range(_DEEPEST):
            if found.kind is not Kind.TYPE_TAG and found.kind not in kinds:
                return found
            found = found.target
        raise self._endless()

    def _endless(self) -> BadFile:
        return BadFile(self.btf.name, f"type {self.id}", "refers to itself")

    @property
    def count(self) -> int:
        """Elements of an array; 0 is a flexible one."""
        return int(_ARRAY.unpack_from(self.btf.data, self._at)[2]) if self.kind is Kind.ARRAY else 0

    @property
    def bits(self) -> int:
        """Bits of an integer's value."""
        return self.btf.data[self._at] if self.kind is Kind.INT else 8 * self.size

    @property
    def is_signed(self) -> bool:
        """Of an integer or an enum."""
        if self.kind is Kind.INT:
            return bool(self.btf.data[self._at + 3] & 1)
        return self.kind in (Kind.ENUM, Kind.ENUM64) and self._flag

    @property
    def is_bool(self) -> bool:
        return self.kind is Kind.INT and bool(self.btf.data[self._at + 3] & 4)

    @property
    def is_union(self) -> bool:
        """Of a composite, or of a declaration without a body."""
        return self.kind is Kind.UNION or (self.kind is Kind.FWD and self._flag)

    # structs and unions

    @property
    def members(self) -> tuple[Member, ...]:
        """Members as written; an anonymous struct or union is one member with an empty name."""
        if self._members is None:
            self._members = tuple(self._member(*raw) for raw in self._raw_members())
        return self._members

    def _raw_members(self) -> Iterator[tuple[int, int, int]]:
        """String offset, type number and place of each member."""
        size = 12 * self._count if self.kind in _COMPOSITE else 0
        return _MEMBER.iter_unpack(self.btf.data[self._at : self._at + size])

    def _member(self, name_off: int, number: int, place: int) -> Member:
        bit_offset, bit_size = (place & 0xFFFFFF, place >> 24) if self._flag else (place, 0)
        kind = self.btf.type(number)
        if not bit_size and kind.kind is Kind.INT:
            bit_size, bit_offset = _old_bit_field(kind, bit_offset)
        return Member(self.btf.string(name_off), kind, bit_offset, bit_size)

    def member(self, path: str) -> Member:
        """The member at ``a``, ``a.b`` or ``a[2].b``, placed from this type's start; NotModelled when there is none."""
        found = self.find(path)
        if found is None:
            raise NotModelled(f"{self.declare()} has no member {path!r} in this kernel")
        return found

    def find(self, path: str) -> Member | None:
        """As ``member``, None when there is none: the way to probe for what differs between kernels."""
        if path not in self._places:
            try:
                self._places[path] = self._walk(path)
            except RecursionError:
                raise self._endless() from None
        return self._places[path]

    def offset_of(self, path: str) -> int:
        """Bytes from this type's start to the member."""
        return self.member(path).offset

    def _walk(self, path: str) -> Member | None:
        found = Member("", self, 0, 0)
        for name, element in _STEP.findall(path):
            here = found.type.strip()
            if element:
                if here.kind is not Kind.ARRAY:
                    return None
                step: Member | None = Member(found.name, here.target, 8 * int(element) * here.target.size, 0)
            else:
                step = here._named(name)
            if step is None:
                return None
            found = step._replace(bit_offset=found.bit_offset + step.bit_offset)
        return found if found.type is not self or path == "" else None

    def _named(self, name: str) -> Member | None:
        """Names are compared where they lie: of a struct of 250 members only the one asked for is decoded."""
        key, is_string = raw_of(name), self.btf._is_string
        anonymous = []
        for raw in self._raw_members():
            if not raw[0]:
                anonymous.append(raw)
            elif is_string(raw[0], key):
                return self._member(*raw)
        for member in (self._member(*raw) for raw in anonymous):
            found = member.type.strip()._named(name)
            if found is not None:
                return found._replace(bit_offset=member.bit_offset + found.bit_offset)
        return None

    # enums, functions, sections

    @property
    def enumerators(self) -> dict[str, int]:
        """Names and values of an enum."""
        data, names = self.btf.data, {}
        if self.kind is Kind.ENUM:
            record = _ENUM if self._flag else _ENUM_UNSIGNED
            for name_off, value in record.iter_unpack(data[self._at : self._at + 8 * self._count]):
                names[self.btf.string(name_off)] = value
        elif self.kind is Kind.ENUM64:
            for name_off, low, high in _ENUM64.iter_unpack(data[self._at : self._at + 12 * self._count]):
                value = high << 32 | low
                names[self.btf.string(name_off)] = value - (1 << 64) if self._flag and value >> 63 else value
        return names

    @property
    def params(self) -> tuple[Param, ...]:
        """Parameters of a function or prototype, without the dots of a variadic one."""
        if self.kind is Kind.FUNC:
            return self.target.params
        pairs = self._pairs()
        return tuple(Param(self.btf.string(name), self.btf.type(number)) for name, number in pairs if name or number)

    @property
    def is_variadic(self) -> bool:
        """Whether a function or prototype ends in dots."""
        if self.kind is Kind.FUNC:
            return self.target.is_variadic
        pairs = self._pairs()
        return bool(pairs) and pairs[-1] == (0, 0)

    @property
    def returns(self) -> Type:
        """What a function or prototype returns (void is a type too)."""
        return self.target.target if self.kind is Kind.FUNC else self.target

    @property
    def linkage(self) -> int:
        """Of a function: 0 static, 1 global, 2 extern. Of a variable the same, from its own word."""
        if self.kind is Kind.VAR:
            return int.from_bytes(self.btf.data[self._at : self._at + 4], "little")
        return self._count if self.kind is Kind.FUNC else 0

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Variables of a data section."""
        if self.kind is not Kind.DATASEC:
            return ()
        data = self.btf.data[self._at : self._at + 12 * self._count]
        found = []
        for number, offset, size in _MEMBER.iter_unpack(data):
            variable = self.btf.type(number)
            found.append(Variable(variable.name, variable.target, offset, size))
        return tuple(found)

    def _pairs(self) -> list[tuple[int, int]]:
        if self.kind is not Kind.FUNC_PROTO:
            return []
        return list(_PAIR.iter_unpack(self.btf.data[self._at : self._at + 8 * self._count]))

    # C

    def declare(self, name: str = "") -> str:
        """The C declaration of something of this type: ``int (*name)(struct file *)``. A function is its prototype."""
        render = _RENDER.get(self.kind)
        if render is None:
            return _spaced(_spelled(self), name)
        try:
            return render(self, name)
        except RecursionError:
            raise self._endless() from None


def _old_bit_field(kind: Type, bit_offset: int) -> tuple[int, int]:
    """Before the flag existed a bit field had an integer type of odd width, and an offset of its own."""
    skip, bits = kind.btf.data[kind._at + 2], kind.bits
    return (bits, bit_offset + skip) if bits != 8 * kind.size or skip else (0, bit_offset)


def _spaced(left: str, right: str) -> str:
    return f"{left} {right}" if right else left


def _spelled(kind: Type) -> str:
    if kind.kind is Kind.VOID:
        return "void"
    word = _KEYWORDS.get(kind.kind, "")
    if kind.kind is Kind.FWD:
        word = "union" if kind.is_union else "struct"
    return f"{word} {kind.name or '{...}'}" if word else kind.name


def _declare_pointer(kind: Type, name: str) -> str:
    target = kind.target
    inner = f"*{name}"
    return target.declare(f"({inner})" if target.untagged().kind in (Kind.ARRAY, Kind.FUNC_PROTO) else inner)


def _declare_array(kind: Type, name: str) -> str:
    return kind.target.declare(f"{name}[{kind.count or ''}]")


def _declare_prototype(kind: Type, name: str) -> str:
    params = [param.type.declare(param.name) for param in kind.params]
    if kind.is_variadic:
        params.append("...")
    return kind.target.declare(f"{name}({', '.join(params) or 'void'})")


def _declare_qualified(kind: Type, name: str) -> str:
    word, target = _QUALIFIERS[kind.kind], kind.target
    if target.untagged(*_QUALIFIERS).kind is Kind.PTR:
        return target.declare(_spaced(word, name))
    return f"{word} {target.declare(name)}"


_RENDER: dict[Kind, Callable[[Type, str], str]] = {
    Kind.PTR: _declare_pointer,
    Kind.ARRAY: _declare_array,
    Kind.FUNC_PROTO: _declare_prototype,
    Kind.CONST: _declare_qualified,
    Kind.VOLATILE: _declare_qualified,
    Kind.RESTRICT: _declare_qualified,
    Kind.TYPE_TAG: lambda kind, name: kind.target.declare(name),
    Kind.FUNC: lambda kind, name: kind.target.declare(name or kind.name),
    Kind.VAR: lambda kind, name: kind.target.declare(name or kind.name),
}


class Btf:
    """Types by number and by name. ``data`` is bytes or a mapping; the BTF is ``size`` bytes at ``start``. ``tables``
    of an earlier one over the same bytes make start instant; without, the types are walked once (a module's takes
    milliseconds). ``base`` is the kernel's for a module's split BTF. ``stands_for`` makes this the distilled base that
    a module built outside the kernel brings along: its types are then answered by the kernel's of the same name."""

    def __init__(
        self,
        data: bytes | mmap.mmap,
        start: int = 0,
        size: int | None = None,
        *,
        name: str = "BTF",
        base: Btf | None = None,
        stands_for: Btf | None = None,
        tables: Mapping[str, memoryview] | None = None,
    ) -> None:
        self.data, self.base, self.name, self._stands_for = data, base, name, stands_for
        self._first_string: int = base._first_string + base._strings_size if base else 0
        size = len(data) - start if size is None else size
        place = _read_header(data, start, size, name)
        self._types_off, self._types_size = place[:2]
        self._strings_off: int = place[2]
        self._strings_size: int = place[3]
        self._first_id = len(base) if base else 1
        self._cache: dict[int, Type] = {}
        self._structs: dict[str, Type | None] = {}
        self._constants: dict[str, int | None] = {}
        if tables is None:
            tables = {key: memoryview(table).cast("B") for key, table in _walk_types(self).items()}
        self.tables = tables
        self._offsets = tables["btf.offset"].cast("I")
        self._slots = Slots(tables["btf.slots"], self._is_named)
        self._enumerators = tables["btf.enumerator"].cast("I")
        self._enumerator_slots = Slots(tables["btf.enumerator_slots"], self._is_enumerator)

    def __len__(self) -> int:
        """One more than the highest type number."""
        return self._first_id + len(self._offsets)

    def __iter__(self) -> Iterator[Type]:
        """This BTF's own types by number, without its base's."""
        return (self.type(number) for number in range(self._first_id, len(self)))

    def type(self, number: int) -> Type:
        """The type of that number; 0 is void."""
        found = self._cache.get(number)
        if found is None:
            found = self._read(number)
            if self._stands_for is not None:
                found = self._stands_for._like(found) or found
            self._cache[number] = found
        return found

    def string(self, offset: int) -> str:
        """The string at an offset that the types use."""
        if self.base is not None and offset < self._first_string:
            return self.base.string(offset)
        start = self._strings_off + offset - self._first_string
        end = self.data.find(b"\0", start, self._strings_off + self._strings_size)
        if end < 0:
            raise BadFile(self.name, "string section", "offset outside", offset, self._strings_size)
        return text_of(self.data[start:end])

    def all(self, name: str) -> Iterator[Type]:
        """Every type of that name, of any kind; the base's after this one's own."""
        if self._stands_for is not None:
            yield from self._stands_for.all(name)
            return
        for number in self._slots.all(raw_of(name)):
            yield self.type(self._first_id + number)
        if self.base is not None:
            yield from self.base.all(name)

    def find(self, name: str, *kinds: Kind) -> Type | None:
        """The first type of that name and one of these kinds (any, when none is given)."""
        return next((found for found in self.all(name) if not kinds or found.kind in kinds), None)

    def find_struct(self, name: str) -> Type | None:
        """The struct or union of that name. A few names have several, private to their files; this is the first."""
        if name not in self._structs:
            self._structs[name] = self.find(name, Kind.STRUCT, Kind.UNION)
        return self._structs[name]

    def struct(self, name: str) -> Type:
        """As ``find_struct``; NotModelled when this kernel has none."""
        found = self.find_struct(name)
        if found is None:
            raise NotModelled(f"{self.name}: this kernel has no struct or union {name!r}")
        return found

    def typedef(self, name: str) -> Type:
        """The typedef of that name, not stripped; NotModelled when this kernel has none."""
        found = self.find(name, Kind.TYPEDEF)
        if found is None:
            raise NotModelled(f"{self.name}: this kernel has no typedef {name!r}")
        return found

    def func(self, name: str) -> Type | None:
        """The function of that name: ``params``, ``returns``, ``declare()``."""
        return self.find(name, Kind.FUNC)

    def enum(self, name: str) -> dict[str, int]:
        """Enumerators of a named enum; NotModelled when this kernel has none."""
        found = self.find(name, Kind.ENUM, Kind.ENUM64)
        if found is None:
            raise NotModelled(f"{self.name}: this kernel has no enum {name!r}")
        return found.enumerators

    def constant(self, name: str) -> int | None:
        """Value of an enumerator of any enum, anonymous ones too; None when this kernel has no such name."""
        if self._stands_for is not None:
            return self._stands_for.constant(name)
        if name not in self._constants:
            number = self._enumerator_slots.first(raw_of(name))
            if number >= 0:
                self._constants |= self.type(self._first_id + self._enumerators[2 * number + 1]).enumerators
            else:
                self._constants[name] = self.base.constant(name) if self.base is not None else None
        return self._constants[name]

    def _like(self, other: Type) -> Type | None:
        """The type of another BTF's type's name, kind and size; a declaration is met by what it declares."""
        kinds = {Kind.FWD: _COMPOSITE, Kind.STRUCT: {Kind.STRUCT}, Kind.UNION: {Kind.UNION}}.get(
            other.kind, {other.kind}
        )
        for found in self.all(other.name) if other.name else ():
            if found.kind in kinds and (found.size == other.size or other.kind is Kind.FWD):
                return found
        return None

    def _read(self, number: int) -> Type:
        if number == 0:
            return Type(self, 0, 0, "void", 0, 0)
        if number < self._first_id and self.base is not None:
            return self.base.type(number)
        if number >= len(self):
            raise BadFile(self.name, "type section", "type number", number, f"below {len(self)}")
        at = self._types_off + self._offsets[number - self._first_id]
        name_off, info, word = _TYPE.unpack_from(self.data, at)
        return Type(self, number, at + 12, self.string(name_off), info, word)

    def _is_named(self, number: int, name: bytes) -> bool:
        at = self._types_off + self._offsets[number]
        return self._is_string(int.from_bytes(self.data[at : at + 4], "little"), name)

    def _is_enumerator(self, number: int, name: bytes) -> bool:
        return self._is_string(self._enumerators[2 * number], name)

    def _is_string(self, offset: int, name: bytes) -> bool:
        if self.base is not None and offset < self._first_string:
            return self.base._is_string(offset, name)
        start = self._strings_off + offset - self._first_string
        return self.data[start : start + len(name) + 1] == name + b"\0"


def module_btf(types: bytes, kernel: Btf, *, distilled: bytes | None = None, name: str = "module") -> Btf:
    """Types of a module from its ``.BTF`` section, over the kernel's. One built outside the kernel's tree may carry a
    ``.BTF.base`` section: ``distilled``."""
    base = kernel if distilled is None else Btf(distilled, name=f"{name}: .BTF.base", stands_for=kernel)
    return Btf(types, base=base, name=f"{name}: .BTF")


def _walk_types(btf: Btf) -> dict[str, array[int]]:
    """Walk every type once: places of the types, names of types and of enumerators."""
    data = btf.data[btf._types_off : btf._types_off + btf._types_size]
    strings = _Strings(btf)
    offsets, named, names = array("I"), [], []
    enumerators, enumerator_names = array("I"), []
    at, end = 0, len(data)
    while at < end:
        if at + 12 > end:
            raise BadFile(btf.name, "type section", "ends inside a type", end)
        name_off, info, _ = _TYPE.unpack_from(data, at)
        kind, count, number = info >> 24 & 0x1F, info & 0xFFFF, len(offsets)
        if not 0 < kind < len(_FIXED):
            raise BadFile(btf.name, f"type section+0x{at:x}", "unknown kind", kind)
        offsets.append(at)
        if name_off:
            named.append(number)
            names.append(strings[name_off])
        if kind in (Kind.ENUM, Kind.ENUM64):
            each = _EACH[kind]
            for place in range(at + 12, min(at + 12 + each * count, end - each + 1), each):
                enumerator_off = int.from_bytes(data[place : place + 4], "little")
                enumerators.extend((enumerator_off, number))
                enumerator_names.append(strings[enumerator_off])
        at += _FIXED[kind] + _EACH[kind] * count
    if at != end:
        raise BadFile(btf.name, "type section", "ends inside a type", at, end)
    return {
        "btf.offset": offsets,
        "btf.slots": build_slots(names, len(names), named),
        "btf.enumerator": enumerators,
        "btf.enumerator_slots": build_slots(enumerator_names, len(enumerator_names)),
    }


class _Strings:
    """Strings as bytes, for the one walk over everything."""

    def __init__(self, btf: Btf) -> None:
        self._blob = btf.data[btf._strings_off : btf._strings_off + btf._strings_size]
        self._btf = btf

    def __getitem__(self, offset: int) -> bytes:
        offset -= self._btf._first_string
        if offset < 0:
            return raw_of(self._btf.string(offset + self._btf._first_string))
        end = self._blob.find(b"\0", offset)
        if end < 0:
            raise BadFile(self._btf.name, "string section", "offset outside", offset, len(self._blob))
        return self._blob[offset:end]


def _read_header(data: bytes | mmap.mmap, start: int, size: int, name: str) -> tuple[int, int, int, int]:
    if size < _HEADER.size or start + size > len(data):
        raise BadFile(name, "header", "too short", size, _HEADER.size)
    magic, _, _, header_size, types_off, types_size, strings_off, strings_size = _HEADER.unpack_from(data, start)
    if magic != _MAGIC:
        raise BadFile(name, "header", "magic", magic, _MAGIC)
    for what, offset, length in (("type", types_off, types_size), ("string", strings_off, strings_size)):
        if header_size + offset + length > size:
            raise BadFile(name, f"{what} section", "reaches behind the end", header_size + offset + length, size)
    return start + header_size + types_off, types_size, start + header_size + strings_off, strings_size

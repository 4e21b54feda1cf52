"""``linux/slab.h``: everything comes from the one heap, which watches what modules do with it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated

from kobox.abi.c import CType, char_p, fn_p, gfp_t, int_, size_t, uint, ulong, void_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.bare.guest import BareGuest

_ZERO = 0x100
_Pointer = Annotated[Generator[tuple[int, ...], int, int], CType("void *", 8, pointer=True)]
_MODEL = Fidelity.MODEL

TABLE = ExportTable("linux/slab.h")


@TABLE.export(fidelity=_MODEL, also=("kmalloc_large",))
def __kmalloc(k: BareGuest, size: size_t, flags: gfp_t) -> void_p:
    """Model: no accounting, and memory never runs short before the heap does."""
    return k.heap.allocate(size, zero=bool(flags & _ZERO))


@TABLE.export(fidelity=_MODEL)
def __kmalloc_node(k: BareGuest, size: size_t, flags: gfp_t, node: int_) -> void_p:
    return k.heap.allocate(size, zero=bool(flags & _ZERO))


@TABLE.export(fidelity=_MODEL)
def kmalloc_trace(k: BareGuest, cache: void_p, flags: gfp_t, size: size_t) -> void_p:
    return k.heap.allocate(size, zero=bool(flags & _ZERO))


@TABLE.export(fidelity=_MODEL, also=("kvfree", "vfree"))
def kfree(k: BareGuest, address: void_p) -> None:
    k.heap.release(address)


@TABLE.export(fidelity=_MODEL)
def vmalloc(k: BareGuest, size: ulong) -> void_p:
    """Model: lies in the heap, without a guard page."""
    return k.heap.allocate(size)


@TABLE.export(fidelity=_MODEL)
def vzalloc(k: BareGuest, size: ulong) -> void_p:
    return k.heap.allocate(size, zero=True)


@TABLE.export(fidelity=_MODEL)
def krealloc(k: BareGuest, address: void_p, size: size_t, flags: gfp_t) -> void_p:
    """Model: always moves."""
    if size == 0:
        k.heap.release(address)
        return k.heap.ZERO_SIZE
    new = k.heap.allocate(size, zero=bool(flags & _ZERO))
    old = k.heap.size_of(address)
    if new and old:
        k.write(new, k.read(address, min(old, size)))
        k.heap.release(address)
    return new


@TABLE.export(fidelity=_MODEL)
def ksize(k: BareGuest, address: void_p) -> size_t:
    return k.heap.size_of(address)


@TABLE.export(fidelity=_MODEL)
def kstrdup(k: BareGuest, text: char_p, flags: gfp_t) -> void_p:
    if not text:
        return 0
    data = k.read_cstr(text) + b"\0"
    address = k.heap.allocate(len(data))
    if address:
        k.write(address, data)
    return address


@TABLE.export(fidelity=_MODEL)
def kmemdup(k: BareGuest, source: void_p, size: size_t, flags: gfp_t) -> void_p:
    data = k.read(source, size)
    address = k.heap.allocate(size)
    if address:
        k.write(address, data)
    return address


@TABLE.export(fidelity=_MODEL)
def kmem_cache_create(k: BareGuest, name: char_p, size: uint, align: uint, flags: uint, ctor: fn_p) -> void_p:
    """Model: objects come from the heap one by one, and every one is constructed when it is taken."""
    return k.heap.create_cache(k.read_cstr(name).decode("latin-1"), size, align, ctor)


@TABLE.export(fidelity=_MODEL)
def kmem_cache_alloc(k: BareGuest, cache: void_p, flags: gfp_t) -> _Pointer:
    made = k.heap.caches[cache]
    address = k.heap.allocate(made.size, zero=bool(flags & _ZERO), cache=cache)
    if made.constructor and address:
        yield made.constructor, address
    return address


@TABLE.export(fidelity=_MODEL)
def kmem_cache_free(k: BareGuest, cache: void_p, address: void_p) -> None:
    k.heap.release(address, cache)


@TABLE.export(fidelity=_MODEL)
def kmem_cache_destroy(k: BareGuest, cache: void_p) -> None:
    k.heap.destroy_cache(cache)

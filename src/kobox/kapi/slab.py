"""``linux/slab.h`` and ``linux/vmalloc.h`` as modules see them: the guest's own allocators behind the memory checker.

Each function calls the one it is named after. What differs: allocations are asked for with room for a redzone, so a
slab cache or a ``kmalloc`` bucket may be a size larger than on a real kernel; freed memory goes back later; and
``krealloc`` always moves.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Annotated

from kobox.abi.c import CType, char_p, fn_p, gfp_t, int_, size_t, uint, ulong, void_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.kernel.heapcheck import HeapCheck, bucket, room, slack_of
from kobox.kernel.heapcheck_records import HeapObject, Pool

_Steps = Generator[tuple[int, ...], int, int]
_Pointer = Annotated[_Steps, CType("void *", 8, pointer=True)]
_Size = Annotated[_Steps, CType("size_t", 8)]
_Int = Annotated[_Steps, CType("int", 4, signed=True)]
_Void = Annotated[Generator[tuple[int, ...], int, None], CType("void", 0)]

_PAGE = 4096
_PADDING = 16
_MODEL = Fidelity.MODEL

slab = ExportTable("linux/slab.h")
vmalloc_h = ExportTable("linux/vmalloc.h")


# -- kmalloc ----------------------------------------------------------------------------------------------------------


@slab.export(
    fidelity=_MODEL, also=("__kmalloc_noprof", "kmalloc_large", "kmalloc_large_noprof", "__kmalloc_large_noprof")
)
def __kmalloc(k: HeapCheck, size: size_t, flags: gfp_t) -> _Pointer:
    address = yield (k.call.real, room(size), flags)
    return k.track(address, size, Pool.KMALLOC, slack_of(size))


@slab.export(
    fidelity=_MODEL,
    also=(
        "__kmalloc_node_noprof", "kmalloc_large_node", "__kmalloc_large_node_noprof",
        "__kmalloc_node_track_caller", "__kmalloc_node_track_caller_noprof",
    ),
)  # fmt: skip
def __kmalloc_node(k: HeapCheck, size: size_t, first: ulong, second: ulong, third: ulong, fourth: ulong) -> _Pointer:
    """Flags, node, and where they exist the bucket set and the caller, are passed on as they are."""
    address = yield (k.call.real, room(size), first, second, third, fourth)
    return k.track(address, size, Pool.KMALLOC, slack_of(size))


@slab.export(fidelity=_MODEL, gpl=False, also=("__kmalloc_cache_noprof",))
def kmalloc_trace(k: HeapCheck, cache: void_p, flags: gfp_t, size: size_t) -> _Pointer:
    """The cache fits the size exactly; where that leaves no room for a redzone, the size decides anew."""
    if room(size) == size:
        address = yield (k.call.real, cache, flags, size)
    else:
        address = yield (k.real("__kmalloc", "__kmalloc_noprof"), room(size), flags)
    return k.track(address, size, Pool.KMALLOC, slack_of(size))


@slab.export(fidelity=_MODEL, also=("__kmalloc_cache_node_noprof",))
def kmalloc_node_trace(k: HeapCheck, cache: void_p, flags: gfp_t, node: int_, size: size_t) -> _Pointer:
    """As ``kmalloc_trace``; there is one node."""
    if room(size) == size:
        address = yield (k.call.real, cache, flags, node, size)
    else:
        address = yield (k.real("__kmalloc", "__kmalloc_noprof"), room(size), flags)
    return k.track(address, size, Pool.KMALLOC, slack_of(size))


@slab.export(fidelity=_MODEL, also=("krealloc_noprof",))
def krealloc(k: HeapCheck, old: void_p, size: size_t, flags: gfp_t) -> _Pointer:
    """Always a new place, so that a pointer to the old one is found out."""
    one = k.find(old)
    if one is None or k.call.owner is None:
        if one is not None:
            one.redzone = 0  # the kernel may let it grow into its slack
        fresh = old <= 16
        address = yield (k.call.real, old, room(size) if fresh else size, flags)
        return k.track(address, size, Pool.KMALLOC, slack_of(size)) if fresh else address
    if not size:
        yield from _free(k, one)
        return 16
    address = yield (k.real("__kmalloc", "__kmalloc_noprof"), room(size), flags)
    if address:
        k.guest.write(address, k.guest.read(old, min(size, one.size)))
        k.track(address, size, Pool.KMALLOC, slack_of(size))
        yield from _free(k, one)
    return address


@slab.export(fidelity=_MODEL, also=("__kvmalloc_node_noprof",))
def kvmalloc_node(k: HeapCheck, size: size_t, first: ulong, second: ulong, third: ulong) -> _Pointer:
    address = yield (k.call.real, room(size), first, second, third)
    pool = k.pool_of(address)
    return k.track(address, size, pool, slack_of(size) if pool is Pool.KMALLOC else -size % _PAGE)


@slab.export()
def ksize(k: HeapCheck, address: void_p) -> _Size:
    """Who asks may use all of it: there is no redzone from then on."""
    whole = yield (k.call.real, address)
    one = k.find(address)
    if one is not None and whole > one.size:
        one.size, one.redzone = whole, 0
    return whole


# -- copies: the kernel allocates, the module owns --------------------------------------------------------------------


def _owned(k: HeapCheck, address: int, size: int) -> int:
    """Made by the kernel for the module: what the bucket has left is its redzone."""
    if address >> 63 == 0 or address >= 0xFFFF_FFFF_FFFF_F000 or k.pool_of(address) is not Pool.KMALLOC:
        return address
    return k.track(address, size, Pool.KMALLOC, bucket(size) - size)


def _owned_text(k: HeapCheck, address: int) -> int:
    if address >> 63 == 0 or address >= 0xFFFF_FFFF_FFFF_F000:
        return address
    return _owned(k, address, len(k.guest.read_cstr(address, 1 << 20)) + 1)


def _owned_whole(k: HeapCheck, address: int) -> Generator[tuple[int, ...], int, int]:
    """Formatted text may hold NULs, so nothing tells its length: all that was allocated is the object."""
    if address >> 63 == 0 or address >= 0xFFFF_FFFF_FFFF_F000:
        return address
    return k.track(address, (yield (k.real("ksize"), address)), k.pool_of(address))


@slab.export(also=("kmemdup_noprof",))
def kmemdup(k: HeapCheck, source: void_p, size: size_t, flags: gfp_t) -> _Pointer:
    return _owned(k, (yield (k.call.real, source, size, flags)), size)


@slab.export()
def kmemdup_array(k: HeapCheck, source: void_p, count: size_t, size: size_t, flags: gfp_t) -> _Pointer:
    return _owned(k, (yield (k.call.real, source, count, size, flags)), count * size)


@slab.export(also=("kmemdup_nul_noprof",))
def kmemdup_nul(k: HeapCheck, source: char_p, size: size_t, flags: gfp_t) -> _Pointer:
    return _owned(k, (yield (k.call.real, source, size, flags)), size + 1)


@slab.export()
def memdup_user(k: HeapCheck, source: void_p, size: size_t) -> _Pointer:
    return _owned(k, (yield (k.call.real, source, size)), size)


@slab.export()
def memdup_user_nul(k: HeapCheck, source: void_p, size: size_t) -> _Pointer:
    return _owned(k, (yield (k.call.real, source, size)), size + 1)


@slab.export(also=("kstrdup_noprof", "kstrdup_const"))
def kstrdup(k: HeapCheck, source: char_p, flags: gfp_t) -> _Pointer:
    """``kstrdup_const`` gives a constant back as it is; that is not memory of the slab."""
    return _owned_text(k, (yield (k.call.real, source, flags)))


@slab.export(also=("kstrndup_noprof",))
def kstrndup(k: HeapCheck, source: char_p, limit: size_t, flags: gfp_t) -> _Pointer:
    return _owned_text(k, (yield (k.call.real, source, limit, flags)))


@slab.export()
def strndup_user(k: HeapCheck, source: char_p, limit: ulong) -> _Pointer:
    return _owned_text(k, (yield (k.call.real, source, limit)))


@slab.export()
def kvasprintf(k: HeapCheck, flags: gfp_t, form: char_p, arguments: void_p) -> _Pointer:
    return (yield from _owned_whole(k, (yield (k.call.real, flags, form, arguments))))


@slab.export()
def kasprintf(k: HeapCheck, flags: gfp_t, form: char_p, a: ulong, b: ulong, c: ulong, d: ulong) -> _Pointer:
    """Further arguments lie on the caller's stack; as many as a format may sensibly have are handed on."""
    text = yield (k.call.real, flags, form, a, b, c, d, *k.stack_words(24))
    return (yield from _owned_whole(k, text))


# -- freeing ----------------------------------------------------------------------------------------------------------


def _free(k: HeapCheck, one: HeapObject) -> Generator[tuple[int, ...], int, None]:
    """Free a tracked object, by whichever function takes it back."""
    call = yield from k.release(one)
    if call:
        yield call


@slab.export(fidelity=_MODEL, also=("kfree_sensitive", "kfree_const", "kvfree", "vfree", "vfree_atomic"))
def kfree(k: HeapCheck, address: void_p) -> _Void:
    one = k.find(address)
    if one is not None:
        k.leave_with((yield from k.release(one)))
    elif not (yield from k.refuse(address)):
        k.leave_to(address)


@slab.export(fidelity=_MODEL)
def kvfree_sensitive(k: HeapCheck, address: void_p, size: size_t) -> _Void:
    one = k.find(address)
    if one is not None:
        k.leave_with((yield from k.release(one)))
    elif not (yield from k.refuse(address)):
        k.leave_to(address, size)


@slab.export()
def kvfree_call_rcu(k: HeapCheck, head: void_p, what: ulong) -> _Void:
    """``kfree_rcu``. ``what`` is the offset of ``head`` in the object up to 6.3, the object since (04a522b7da3d)."""
    one = k.find(head - what if what < _PAGE else what)
    if one is not None:
        one.promised, one.freed = True, k.trace()
    k.leave_to(head, what)
    yield from ()


# -- slab caches ------------------------------------------------------------------------------------------------------


@slab.export(fidelity=_MODEL)
def kmem_cache_create(k: HeapCheck, name: char_p, size: uint, align: uint, flags: ulong, ctor: fn_p) -> _Pointer:
    """Objects are larger by a redzone."""
    cache = yield (k.call.real, name, size + _PADDING, align, flags, ctor)
    return k.note_cache(cache, name, size, bool(ctor))


@slab.export(fidelity=_MODEL)
def kmem_cache_create_usercopy(
    k: HeapCheck, name: char_p, size: uint, align: uint, flags: ulong, offset: uint, length: uint, ctor: fn_p
) -> _Pointer:
    cache = yield (k.call.real, name, size + _PADDING, align, flags, offset, length, ctor)
    return k.note_cache(cache, name, size, bool(ctor))


@slab.export(fidelity=_MODEL)
def __kmem_cache_create_args(k: HeapCheck, name: char_p, size: uint, args: void_p, flags: ulong) -> _Pointer:
    cache = yield (k.call.real, name, size + _PADDING, args, flags)
    constructed = args != 0 and k.guest.view("kmem_cache_args", args)["ctor"] != 0
    return k.note_cache(cache, name, size, constructed)


@slab.export(also=("kmem_cache_alloc_noprof",))
def kmem_cache_alloc(k: HeapCheck, cache: void_p, flags: gfp_t) -> _Pointer:
    return _from_cache(k, cache, (yield (k.call.real, cache, flags)))


@slab.export(also=("kmem_cache_alloc_lru_noprof", "kmem_cache_alloc_node", "kmem_cache_alloc_node_noprof"))
def kmem_cache_alloc_lru(k: HeapCheck, cache: void_p, first: ulong, second: ulong) -> _Pointer:
    return _from_cache(k, cache, (yield (k.call.real, cache, first, second)))


@slab.export(also=("kmem_cache_alloc_bulk_noprof",))
def kmem_cache_alloc_bulk(k: HeapCheck, cache: void_p, flags: gfp_t, count: size_t, place: void_p) -> _Int:
    got = yield (k.call.real, cache, flags, count, place)
    for index in range(got & 0xFFFF_FFFF):
        _from_cache(k, cache, k.guest.read_uint(place + 8 * index))
    return got


def _from_cache(k: HeapCheck, cache: int, address: int) -> int:
    if not address or k.call.owner is None:
        return address
    size, slack = k.cache_size(cache)
    return k.track(address, size, Pool.CACHE, slack, cache)


@slab.export(fidelity=_MODEL)
def kmem_cache_free(k: HeapCheck, cache: void_p, address: void_p) -> _Void:
    one = k.find(address)
    if one is not None:
        k.leave_with((yield from k.release(one)))
    elif not (yield from k.refuse(address)):
        k.leave_to(cache, address)


@slab.export(fidelity=_MODEL)
def kmem_cache_free_bulk(k: HeapCheck, cache: void_p, count: size_t, place: void_p) -> _Void:
    """Without a cache (``kfree_bulk``) the objects are any."""
    others = []
    for (address,) in struct.iter_unpack("<Q", k.guest.read(place, 8 * count)):
        one = k.find(address)
        if one is not None:
            yield from _free(k, one)
        elif not (yield from k.refuse(address)):
            others.append(address)
    if others and len(others) < count:
        k.guest.write(place, struct.pack(f"<{len(others)}Q", *others))
    if others:
        k.leave_to(cache, len(others), place)


@slab.export()
def kmem_cache_destroy(k: HeapCheck, cache: void_p) -> _Void:
    yield from k.empty_cache(cache)
    k.leave_to(cache)


@slab.export()
def kmem_cache_size(k: HeapCheck, cache: void_p) -> Annotated[_Steps, CType("unsigned int", 4)]:
    whole = yield (k.call.real, cache)
    facts = k.state.caches.get(cache)
    return facts.size if facts is not None else whole


# -- vmalloc: whole pages with a hole behind them, so that the kernel itself finds what goes far ----------------------


def _pages(k: HeapCheck, address: int, size: int) -> int:
    return k.track(address, size, Pool.VMALLOC, -size % _PAGE)


@vmalloc_h.export(
    also=(
        "vzalloc", "vmalloc_node", "vzalloc_node", "vmalloc_32", "vmalloc_huge", "__vmalloc",
        "vmalloc_noprof", "vzalloc_noprof", "vmalloc_node_noprof", "vzalloc_node_noprof", "vmalloc_32_noprof",
        "vmalloc_huge_noprof", "vmalloc_huge_node_noprof", "__vmalloc_noprof",
    )
)  # fmt: skip
def vmalloc(k: HeapCheck, size: ulong, flags: ulong, more: ulong) -> _Pointer:
    return _pages(k, (yield (k.call.real, size, flags, more)), size)


@vmalloc_h.export(also=("vmalloc_32_user", "vmalloc_user_noprof", "vmalloc_32_user_noprof"))
def vmalloc_user(k: HeapCheck, size: ulong) -> _Pointer:
    """User space sees the whole pages: no redzone."""
    return k.track((yield (k.call.real, size)), size, Pool.VMALLOC)


@vmalloc_h.export(
    also=("__vmalloc_array", "vcalloc", "__vcalloc", "vmalloc_array_noprof", "__vmalloc_array_noprof", "vcalloc_noprof",
          "__vcalloc_noprof")
)  # fmt: skip
def vmalloc_array(k: HeapCheck, count: size_t, size: size_t, flags: ulong) -> _Pointer:
    return _pages(k, (yield (k.call.real, count, size, flags)), count * size)


HEAP_TABLES = (slab, vmalloc_h)

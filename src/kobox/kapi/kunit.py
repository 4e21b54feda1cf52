"""``kunit/test.h``, ``kunit/resource.h``, ``kunit/assert.h``, ``kunit/try-catch.h``: what KUnit's core exports, for
kernels that were built without it.

Names that came and went between releases stand side by side; a module binds those that its headers knew. The functions
that word a failed assertion (``kunit_*_assert_format``) are never called: their addresses say which kind it is.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Annotated

from kobox.abi.c import CType, char_p, fn_p, gfp_t, size_t, uint, void_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.kernel.guest import errno_of
from kobox.kernel.kunit import ASSERTION, FAILURE, KUnit
from kobox.kernel.tasks import USER_SPACE

_Steps = Generator[tuple[int, ...], int, int]
_Pointer = Annotated[_Steps, CType("void *", 8, pointer=True)]
_Int = Annotated[_Steps, CType("int", 4, signed=True)]
_Void = Annotated[Generator[tuple[int, ...], int, None], CType("void", 0)]

_MODEL = Fidelity.MODEL
_ENOENT = 2
_TRUE = 0xFF
_RLIMIT_STACK = 3
_ACTION = struct.Struct("<QQ")
"""What lies behind the resource of a deferred action: the function and its argument."""

test_h = ExportTable("kunit/test.h")
resource_h = ExportTable("kunit/resource.h")
assert_h = ExportTable("kunit/assert.h")
try_catch_h = ExportTable("kunit/try-catch.h")
own = ExportTable("kunit: functions that tests get pointers to")
"""Not exported."""


# -- assertions -------------------------------------------------------------------------------------------------------


@test_h.export(fidelity=_MODEL, gpl=True)
def kunit_do_failed_assertion(
    k: KUnit, test: void_p, loc: void_p, kind: uint, asserted: void_p, wording: fn_p, fmt: char_p
) -> _Void:
    """Before 6.4 this ended the test, too."""
    yield from k.fail(test, loc, kind, asserted, wording, fmt)
    if kind == ASSERTION:
        yield from k.throw(test + k.layouts.offset("kunit.try_catch"))


@test_h.export(fidelity=_MODEL, gpl=True)
def __kunit_do_failed_assertion(
    k: KUnit, test: void_p, loc: void_p, kind: uint, asserted: void_p, wording: fn_p, fmt: char_p
) -> _Void:
    yield from k.fail(test, loc, kind, asserted, wording, fmt)


@test_h.export(gpl=True)
def __kunit_abort(k: KUnit, test: void_p) -> _Void:
    yield from k.throw(test + k.layouts.offset("kunit.try_catch"))


@assert_h.export(
    fidelity=_MODEL,
    gpl=True,
    also=(
        "kunit_unary_assert_format", "kunit_ptr_not_err_assert_format", "kunit_binary_assert_format",
        "kunit_binary_ptr_assert_format", "kunit_binary_str_assert_format", "kunit_mem_assert_format",
    ),
)  # fmt: skip
def kunit_fail_assert_format(k: KUnit, asserted: void_p, message: void_p, stream: void_p) -> None:
    """Model: a ``string_stream`` is not there to be filled."""


# -- suites and tests -------------------------------------------------------------------------------------------------


@test_h.export(gpl=True)
def kunit_run_tests(k: KUnit, suite: void_p) -> _Int:
    yield from k.run_suite(suite)
    return 0


@test_h.export(gpl=True)
def kunit_suite_num_test_cases(k: KUnit, suite: void_p) -> size_t:
    return len(k.cases(suite))


@test_h.export(gpl=True)
def kunit_suite_has_succeeded(k: KUnit, suite: void_p) -> uint:
    return k.suite_status(suite)


@test_h.export(gpl=True)
def kunit_test_case_num(k: KUnit, suite: void_p, case: void_p) -> uint:
    """From 1; 0 where the suite has no such case."""
    cases = k.cases(suite)
    return cases.index(case) + 1 if case in cases else 0


@test_h.export(gpl=True)
def kunit_init_test(k: KUnit, test: void_p, name: char_p, log: void_p) -> None:
    k.init_test(test, name, log)


@test_h.export(gpl=True)
def kunit_cleanup(k: KUnit, test: void_p) -> _Void:
    yield from k.cleanup(test)


@test_h.export(fidelity=_MODEL, gpl=True)
def kunit_log_append(k: KUnit, log: void_p, fmt: char_p) -> None:
    """Model: there is no log beside the kernel's, as in a kernel without CONFIG_KUNIT_DEBUGFS."""


# -- threads ----------------------------------------------------------------------------------------------------------


@try_catch_h.export(gpl=True)
def kunit_try_catch_throw(k: KUnit, attempt: void_p) -> _Void:
    yield from k.throw(attempt)


@try_catch_h.export(gpl=True)
def kunit_try_catch_run(k: KUnit, attempt: void_p, context: void_p) -> _Void:
    """Model of ``struct kunit_try_catch`` as a member of ``struct kunit``, as it always is."""
    test = attempt - k.layouts.offset("kunit.try_catch")
    k.layouts.set(test, "kunit.try_catch.context", context)
    if (yield from k.try_catch_run(test)):
        yield (k.layouts.get(test, "kunit.try_catch.catch"), context)


@own.export()
def kunit_generic_run_threadfn_adapter(k: KUnit, attempt: void_p) -> _Int:
    yield from k.thread_body(attempt)
    return 0


# -- resources --------------------------------------------------------------------------------------------------------


@resource_h.export(gpl=True)
def __kunit_add_resource(k: KUnit, test: void_p, init: fn_p, free: fn_p, resource: void_p, data: void_p) -> _Int:
    k.layouts.set(resource, "kunit_resource.free", free)
    if init:
        k.layouts.set(resource, "kunit_resource.refcount", 1)
        answer = (yield (init, resource, data)) & 0xFFFF_FFFF
        if answer:
            return answer - (1 << 32) if answer >> 31 else answer
    else:
        k.layouts.set(resource, "kunit_resource.data", data)
    k.link(test, resource)
    return 0


@resource_h.export(gpl=True)
def kunit_remove_resource(k: KUnit, test: void_p, resource: void_p) -> _Void:
    yield from k.remove(resource)


@resource_h.export(gpl=True)
def kunit_destroy_resource(k: KUnit, test: void_p, match: fn_p, data: void_p) -> _Int:
    for resource in k.resources(test):
        if (yield (match, test, resource, data)) & _TRUE:
            yield from k.remove(resource)
            return 0
    return -_ENOENT


@test_h.export(gpl=True)
def kunit_kmalloc_array(k: KUnit, test: void_p, count: size_t, size: size_t, flags: gfp_t) -> _Pointer:
    if count * size >> 64:
        return 0
    data = yield (k.guest.first_symbol("__kmalloc", "__kmalloc_noprof"), count * size, flags)
    if data:
        k.link(test, (yield from k.alloc_resource(data, "kunit_kmalloc_array_free")))
    return data


@own.export()
def kunit_kmalloc_array_free(k: KUnit, resource: void_p) -> _Void:
    yield from k.env.kfree(k.layouts.get(resource, "kunit_resource.data"))


@test_h.export(fidelity=_MODEL, gpl=True)
def kunit_kfree(k: KUnit, test: void_p, address: void_p) -> _Void:
    """Model: what KUnit has not allocated fails the test without a place in its source."""
    if not address:
        return
    free = k.natives.stub("kunit_kmalloc_array_free")
    for resource in k.resources(test):
        owned = k.layouts.get(resource, "kunit_resource.data") == address
        if owned and k.layouts.get(resource, "kunit_resource.free") == free:
            yield from k.remove(resource)
            return
    k.layouts.set(test, "kunit.status", FAILURE)
    yield from k.err(test, f"kunit_kfree: {address:016x} already freed or not allocated by kunit")


@test_h.export(gpl=True)
def kunit_kfree_const(k: KUnit, test: void_p, address: void_p) -> _Void:
    """As where KUnit is a module: ``kunit_kstrdup_const`` always copies."""
    yield from kunit_kfree(k, test, address)


@test_h.export(gpl=True)
def kunit_kstrdup_const(k: KUnit, test: void_p, text: char_p, flags: gfp_t) -> _Pointer:
    if not text:
        return 0
    data = k.guest.read_cstr(text, 1 << 20) + b"\0"
    copy: int = yield from kunit_kmalloc_array(k, test, 1, len(data), flags)
    if copy:
        k.guest.write(copy, data)
    return copy


# -- deferred actions -------------------------------------------------------------------------------------------------


@resource_h.export(gpl=True)
def kunit_add_action(k: KUnit, test: void_p, action: fn_p, argument: void_p) -> _Int:
    k.link(test, (yield from k.alloc_resource(0, "kunit_action_free", _ACTION.pack(action, argument))))
    return 0


@resource_h.export(gpl=True)
def kunit_add_action_or_reset(k: KUnit, test: void_p, action: fn_p, argument: void_p) -> _Int:
    """Memory for the resource is there, or the guest has run out of it altogether."""
    result: int = yield from kunit_add_action(k, test, action, argument)
    return result


@own.export()
def kunit_action_free(k: KUnit, resource: void_p) -> _Void:
    action, argument = _action(k, resource)
    yield (action, argument)


@resource_h.export(gpl=True)
def kunit_remove_action(k: KUnit, test: void_p, action: fn_p, argument: void_p) -> _Void:
    resource = _find_action(k, test, action, argument)
    if resource:
        k.layouts.set(resource, "kunit_resource.free", 0)
        yield from k.remove(resource)


@resource_h.export(gpl=True)
def kunit_release_action(k: KUnit, test: void_p, action: fn_p, argument: void_p) -> _Void:
    resource = _find_action(k, test, action, argument)
    if resource:
        yield from k.remove(resource)


def _action(k: KUnit, resource: int) -> tuple[int, int]:
    action, argument = _ACTION.unpack(k.guest.read(resource + k.layouts.size("kunit_resource"), _ACTION.size))
    return action, argument


def _find_action(k: KUnit, test: int, action: int, argument: int) -> int:
    """The newest resource of this action; 0 where there is none."""
    free = k.natives.stub("kunit_action_free")
    mine = (one for one in k.resources(test) if k.layouts.get(one, "kunit_resource.free") == free)
    return next((one for one in mine if _action(k, one) == (action, argument)), 0)


# -- user memory ------------------------------------------------------------------------------------------------------


@test_h.export(fidelity=_MODEL, gpl=True)
def kunit_vm_mmap(
    k: KUnit, test: void_p, file: void_p, address: size_t, length: size_t, protection: size_t, flag: size_t
) -> _Pointer:
    """Model: what is mapped is no resource of the test, it goes with its thread. The offset is on the stack."""
    guest = k.guest
    offset = guest.read_uint(k.natives.frame + 16)
    if not guest.view("task_struct", guest.current)["mm"]:
        mm = yield (guest.symbol("mm_alloc"),)
        if not mm:
            return 0
        guest.view("mm_struct", mm)["task_size"] = USER_SPACE
        limits = guest.view("signal_struct", guest.view("task_struct", guest.current)["signal"]).at("rlim")
        stack_limit = limits + _RLIMIT_STACK * guest.layouts.size("rlimit")
        yield (guest.symbol("arch_pick_mmap_layout"), mm, stack_limit)
        yield (guest.symbol("kthread_use_mm"), mm)
    mapped = yield (guest.symbol("vm_mmap"), file, address, length, protection, flag, offset)
    return 0 if errno_of(mapped) else mapped


KUNIT_TABLES = (test_h, resource_h, assert_h, try_catch_h)
"""What modules may bind."""
KUNIT_OWN = (own,)

"""The error tables of LTP's init_module, finit_module and delete_module tests, row by row, and what belongs to them.

Each row is asked of kobox's loader and of the image's own: the second shows that the table is the kernel's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tools.golden_box import BoxKernel
from tools.golden_kernel import Answer

from kobox.box import boot
from paths import EXAMPLES

pytestmark = pytest.mark.image

HELLO, EXPORTER, USER = ((EXAMPLES / name).read_bytes() for name in ("hello.ko", "exporter.ko", "user.ko"))
O_NONBLOCK, O_TRUNC = 0o4000, 0o1000
SIG_ENFORCE = "/sys/module/module/parameters/sig_enforce"
NOWHERE = 0x1000
"""An address of user space where nothing is."""
Ask = Callable[[BoxKernel], Answer]


def finit(kind: str) -> Ask:
    return lambda kernel: kernel.special("finitspecial", kind, HELLO, b"")


def init(kind: str) -> Ask:
    return lambda kernel: kernel.special("initspecial", kind, HELLO, b"")


def finit_hello(params: bytes = b"", flags: int = 0) -> Ask:
    return lambda kernel: kernel.finit_module(HELLO, params, flags)


def init_hello(params: bytes = b"", length: int | None = None) -> Ask:
    return lambda kernel: kernel.init_module(HELLO, params, length)


def delete(name: bytes | None, flags: int = O_NONBLOCK) -> Ask:
    return lambda kernel: kernel.delete_module(name, flags)


def after(first: Ask, then: Ask) -> Ask:
    def ask(kernel: BoxKernel) -> Answer:
        assert first(kernel).errno_name == "OK"
        return then(kernel)

    return ask


def enforcing(then: Ask) -> Ask:
    return after(lambda kernel: kernel.write(SIG_ENFORCE, b"1", 0), then)


def locked_down(then: Ask) -> Ask:
    def lock(kernel: BoxKernel) -> Answer:
        calls = kernel.kernel.syscalls
        calls.window.clear()
        kind, place = calls.window.text("securityfs"), calls.window.text("/sys/kernel/security")
        assert calls.call("mount", kind, place, kind, 0, 0) == 0
        return kernel.write("/sys/kernel/security/lockdown", b"integrity", 0)

    return after(lock, then)


def empty_file(kernel: BoxKernel) -> Answer:
    return kernel.finit_module(b"", b"", 0)


def faulty_buffer(kernel: BoxKernel) -> Answer:
    if kernel.is_own:
        return kernel.operate(kernel.kernel.modules_room.start_init(b"", len(HELLO), b""))
    return kernel.call("init_module", NOWHERE, len(HELLO), 0)


def used_module(then: Ask) -> Ask:
    load = after(lambda kernel: kernel.finit_module(EXPORTER, b"", 0), lambda kernel: kernel.finit_module(USER, b"", 0))
    return after(load, then)


FINIT_MODULE = {
    "invalid-fd": (finit("bad"), "EBADF"),
    "zero-fd (no regular file)": (finit("null"), "EINVAL"),
    "null-param": (finit("nullparam"), "EFAULT"),
    "invalid-param": (finit_hello(b"my_param=invalid"), "EINVAL"),
    "invalid-flags": (finit_hello(flags=-1), "EINVAL"),
    "flag beyond the known ones": (finit_hello(flags=8), "EINVAL"),
    "compressed file": (finit_hello(flags=4), "ENOTSUP"),
    "no-perm": (finit("nocap"), "EPERM"),
    "module-exists": (after(finit_hello(), finit_hello()), "EEXIST"),
    "module-unsigned": (enforcing(finit_hello()), "EKEYREJECTED"),
    "module-unsigned, locked down": (locked_down(finit_hello()), "EPERM"),
    "file-not-readable": (finit("wronly"), "EBADF"),
    "file-not-readable (O_PATH)": (finit("path"), "EBADF"),
    "file-readwrite": (finit("rdwr"), "ETXTBSY"),
    "directory": (finit("dir"), "EINVAL"),
    "pipe": (finit("pipe"), "EINVAL"),
    "empty file": (empty_file, "EINVAL"),
    "valid": (finit_hello(b"my_param=3"), "OK"),
    "file offset": (finit("offset"), "OK"),
}
INIT_MODULE = {
    "NULL-buffer": (init("nullbuf"), "EFAULT"),
    "faulty-buffer": (faulty_buffer, "EFAULT"),
    "null-param": (init("nullparam"), "EFAULT"),
    "zero-size": (init_hello(length=0), "ENOEXEC"),
    "shorter than a header": (init_hello(length=63), "ENOEXEC"),
    "more than all memory": (init("hugelen"), "ENOMEM"),
    "invalid_param": (init_hello(b"my_param=invalid"), "EINVAL"),
    "no-perm": (init("nocap"), "EPERM"),
    "module-exists": (after(init_hello(), init_hello()), "EEXIST"),
    "module-unsigned": (enforcing(init_hello()), "EKEYREJECTED"),
    "module-unsigned, locked down": (locked_down(init_hello()), "EPERM"),
    "valid": (init_hello(b"my_param=3"), "OK"),
}
DELETE_MODULE = {
    "no such module": (delete(b"dummy_1234"), "ENOENT"),
    "empty name": (delete(b""), "ENOENT"),
    "name outside of the address space": (delete(None), "EFAULT"),
    "long name": (delete(b"m" * 4096), "ENOENT"),
    "no-perm": (lambda kernel: kernel.special("deletespecial", "nocap", b"", b"dummy"), "EPERM"),
    "in use by another module": (used_module(delete(b"exporter")), "EAGAIN"),
    "in use by another module, forced": (used_module(delete(b"exporter", O_NONBLOCK | O_TRUNC)), "EAGAIN"),
    "user goes first": (used_module(after(delete(b"user"), delete(b"exporter"))), "OK"),
    "valid": (after(finit_hello(), delete(b"hello")), "OK"),
}
TABLES = {"finit_module": FINIT_MODULE, "init_module": INIT_MODULE, "delete_module": DELETE_MODULE}
ROWS = [(call, row) for call, table in TABLES.items() for row in table]


@pytest.fixture(scope="module", params=["kobox", "kernel"])
def booted(request: pytest.FixtureRequest, kobox_image: str) -> Iterator[BoxKernel]:
    with boot(Path(kobox_image), loader=request.param, check_memory=False) as kernel:
        kernel.checkpoint()
        yield BoxKernel(kernel, -1)


@pytest.fixture
def fresh(booted: BoxKernel) -> BoxKernel:
    booted.kernel.reset()
    booted.guest.machine.cpu.forget_all_code()
    return BoxKernel(booted.kernel, -1)


@pytest.mark.parametrize(("call", "row"), ROWS, ids=[f"{call}: {row}" for call, row in ROWS])
def test_the_system_call_answers_as_the_table_says(fresh: BoxKernel, call: str, row: str) -> None:
    ask, wanted = TABLES[call][row]
    assert ask(fresh).errno_name == wanted


def test_enforcement_of_signatures_cannot_be_taken_back(fresh: BoxKernel) -> None:
    assert fresh.write(SIG_ENFORCE, b"1", 0).errno_name == "OK"
    assert fresh.write(SIG_ENFORCE, b"0", 0).errno_name == "EROFS"


def test_once_disabled_no_module_call_is_allowed(fresh: BoxKernel) -> None:
    assert fresh.write("/proc/sys/kernel/modules_disabled", b"1", 0).errno_name == "OK"
    calls = (finit("bad"), finit_hello(flags=-1), init("nullbuf"), delete(None))
    assert [ask(fresh).errno_name for ask in calls] == ["EPERM"] * 4

"""Who may load modules at all: capabilities, user namespaces, security modules, lockdown. Both loaders answer alike."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from kobox.box import Kernel, boot
from kobox.errors import Errno
from kobox.ko import decompress, split_signature

pytestmark = pytest.mark.image

IMAGES = pytest.mark.parametrize("root", ["debian_root", "trixie_root"])
LOADERS = pytest.mark.parametrize("loader", ["kobox", "kernel"])
CLONE_NEWUSER, CLONE_FS = 0x10000000, 0x200
Boot = Callable[..., Kernel]


@pytest.fixture
def booted(request: pytest.FixtureRequest, root: str) -> Boot:
    def start(**options: str) -> Kernel:
        kernel = boot(request.getfixturevalue(root), **options)
        request.addfinalizer(kernel.close)
        return kernel

    return start


@pytest.fixture
def module(request: pytest.FixtureRequest, root: str) -> bytes:
    """A module of that distribution, its signature taken away."""
    place: Path = request.getfixturevalue(root)
    (found,) = place.rglob("crc7.ko*")
    return bytes(split_signature(decompress(found.read_bytes(), found.name))[0])


def answer(kernel: Kernel, module: bytes) -> int:
    try:
        kernel.init_module(module, "")
    except Errno as refused:
        return refused.number
    return 0


@IMAGES
@LOADERS
def test_a_task_without_the_capability_may_not_load(booted: Boot, module: bytes, loader: str) -> None:
    kernel = booted(loader=loader)
    assert kernel.syscalls.call("setresuid", 1000, 1000, 1000) == 0
    assert answer(kernel, module) == errno.EPERM


@IMAGES
@LOADERS
def test_root_of_a_container_with_a_user_namespace_may_not_load(booted: Boot, module: bytes, loader: str) -> None:
    kernel = booted(loader=loader)
    assert kernel.syscalls.call("unshare", CLONE_FS) == 0
    assert kernel.syscalls.call("unshare", CLONE_NEWUSER) == 0
    assert answer(kernel, module) == errno.EPERM


@IMAGES
@LOADERS
def test_after_modules_disabled_nobody_may_load(booted: Boot, module: bytes, loader: str) -> None:
    kernel = booted(loader=loader)
    kernel.write("/proc/sys/kernel/modules_disabled", b"1")
    assert answer(kernel, module) == errno.EPERM
    with pytest.raises(Errno):
        kernel.write("/proc/sys/kernel/modules_disabled", b"0")


@IMAGES
@LOADERS
def test_a_kernel_booted_without_modules_loads_none(booted: Boot, module: bytes, loader: str) -> None:
    assert answer(booted(loader=loader, append="nomodule"), module) == errno.EPERM


@IMAGES
@LOADERS
@pytest.mark.parametrize(
    ("append", "number"),
    [
        ("lockdown=integrity", errno.EPERM),
        ("lockdown=confidentiality", errno.EPERM),
        ("module.sig_enforce=1", errno.EKEYREJECTED),
        ("lsm=integrity,ima,lockdown ima_appraise=enforce ima_policy=secure_boot", errno.EACCES),
    ],
)
def test_a_policy_refuses_unsigned_modules(booted: Boot, module: bytes, loader: str, append: str, number: int) -> None:
    assert answer(booted(loader=loader, append=append), module) == number

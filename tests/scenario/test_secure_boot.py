"""A kernel on a machine with UEFI: it reads the firmware's variables, locks itself down, knows whom to trust."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kobox.box import Kernel, boot
from kobox.efi import siglist
from kobox.efi.authenticode import carried_certificates, read_image
from kobox.efi.variables import (
    BOOT,
    DB,
    DBX,
    KEPT,
    SECURE_BOOT,
    SETUP_MODE,
    SHOWN,
    SIGNED,
    Key,
    Variable,
    Variables,
    load,
    save,
    shim,
)
from kobox.errors import Errno
from kobox.ko import decompress, split_signature
from kobox.sign import BUILTIN, MACHINE, PLATFORM, SECONDARY
from signing import kept_identity, rsa_identity, signed

pytestmark = pytest.mark.image

OWNER, FIRMWARE = kept_identity("owner"), kept_identity("firmware")
IMAGES = pytest.mark.parametrize("root", ["debian_root", "trixie_root"])
Boot = Callable[..., Kernel]


def variables(*owners_keys: bytes, db: bytes = b"", mokx: bytes = b"") -> Variables:
    """A machine with Secure Boot on, after shim."""
    found = Variables()
    found.store(SECURE_BOOT, b"\1", SHOWN)
    found.store(SETUP_MODE, b"\0", SHOWN)
    found.store(DB, db, SIGNED)
    found.store(shim("MokList"), siglist.encode(map(siglist.certificate, owners_keys)), BOOT)
    found.store(shim("MokListX"), mokx, BOOT)
    return found


@pytest.fixture
def booted(request: pytest.FixtureRequest, root: str, tmp_path: Path) -> Boot:
    """Boots an image with these variables."""
    place = request.getfixturevalue(root)

    def start(wanted: Variables, loader: str = "kobox") -> Kernel:
        (file,) = (place / "boot").glob("vmlinuz-*")
        signers = carried_certificates(read_image(file.read_bytes(), file.name))
        wanted.store(DB, siglist.encode(map(siglist.certificate, signers)) + wanted.value(DB), SIGNED)
        save(tmp_path / "efivars", wanted)
        kernel = boot(place, variables=tmp_path / "efivars", loader=loader)
        request.addfinalizer(kernel.close)
        return kernel

    return start


@pytest.fixture
def module(request: pytest.FixtureRequest, root: str) -> bytes:
    """A module of that distribution, its signature taken away."""
    place: Path = request.getfixturevalue(root)
    (found,) = place.rglob("crc7.ko*")
    return bytes(split_signature(decompress(found.read_bytes(), found.name))[0])


@IMAGES
def test_a_kernel_under_secure_boot_locks_itself_down_and_takes_the_owners_modules(booted: Boot, module: bytes) -> None:
    kernel = booted(variables(OWNER.data, db=siglist.encode([siglist.certificate(FIRMWARE.data)])))
    log = [record.text for record in kernel.dmesg(boot=True)]
    assert "secureboot: Secure boot enabled" in log
    assert "Kernel is locked down from EFI Secure Boot; see man kernel_lockdown.7" in log
    with pytest.raises(Errno) as refused:
        kernel.init_module(module, "")
    # the kernel's IMA policy for Secure Boot demands signatures, ahead of lockdown
    assert refused.value.number == errno.EKEYREJECTED
    assert kernel.dmesg()[-1].text == "Loading of unsigned module is rejected"
    kernel.init_module(signed(module, OWNER), "")
    assert kernel.tainted & 1 << 13 == 0


@IMAGES
def test_the_rings_say_where_each_key_came_from(booted: Boot) -> None:
    kernel = booted(variables(OWNER.data, db=siglist.encode([siglist.certificate(FIRMWARE.data)])))
    rings = {ring.name: {key.description.partition(":")[0]: key.ring for key in ring.keys} for ring in kernel.keyrings}
    assert rings[MACHINE] == {"owner key": MACHINE}
    assert rings[PLATFORM]["firmware key"] == PLATFORM
    assert set(rings[SECONDARY].values()) == {MACHINE, BUILTIN}
    assert set(rings[BUILTIN].values()) == {BUILTIN}


@IMAGES
def test_a_module_whose_hash_is_banned_is_refused_although_its_key_is_trusted(booted: Boot, module: bytes) -> None:
    import hashlib

    good, bad = signed(module, OWNER), signed(module + b"\0", OWNER)
    banned = siglist.encode([siglist.file_hash(hashlib.sha256(bad).digest())])
    kernel = booted(variables(OWNER.data, mokx=banned))
    with pytest.raises(Errno) as refused:
        kernel.init_module(bad, "")
    assert refused.value.number == errno.EKEYREJECTED
    kernel.init_module(good, "")


@IMAGES
def test_the_kernels_own_loader_answers_the_same(booted: Boot, module: bytes) -> None:
    """Unsigned, signed by nobody known, by the owner, by the firmware's key; banned by its hash."""
    import hashlib

    bad = signed(module + b"\0", OWNER)
    banned = siglist.encode([siglist.file_hash(hashlib.sha256(bad).digest())])
    wanted = variables(OWNER.data, db=siglist.encode([siglist.certificate(FIRMWARE.data)]), mokx=banned)
    cases = [module, signed(module, rsa_identity()), bad, bytes([1]) + signed(module, OWNER)[1:]]
    cases += [signed(module, OWNER), signed(module, FIRMWARE)]
    answers = []
    for loader in ("kobox", "kernel"):
        kernel = booted(Variables(wanted), loader)
        kernel.mark_pristine()
        answers.append([])
        for data in cases:
            try:
                kernel.init_module(data, "")
                answers[-1].append(0)
                kernel.reset()
            except Errno as refused:
                answers[-1].append(refused.number)
    assert answers[0] == answers[1]
    assert answers[0] == [errno.EKEYREJECTED] * 4 + [0, 0]


@IMAGES
def test_the_guest_reads_and_sets_variables_through_its_own_efivarfs(booted: Boot, tmp_path: Path) -> None:
    kernel = booted(variables())
    assert kernel.read("/sys/firmware/efi/fw_platform_size") == b"64\n"
    kernel.modprobe("efivarfs")
    folder = "/sys/firmware/efi/efivars"
    kernel.files.mount("efivarfs", folder, "efivarfs")
    assert kernel.read(f"{folder}/{SECURE_BOOT}") == b"\6\0\0\0\1"
    assert str(shim("MokListTrustedRT")) in [entry.name for entry in kernel.files.list(folder)]
    kernel.files.write(f"{folder}/{shim('MokNew')}", b"\7\0\0\0new", os.O_WRONLY | os.O_CREAT)
    assert load(tmp_path / "efivars")[shim("MokNew")] == Variable(KEPT, b"new")


@IMAGES
def test_a_machine_without_secure_boot_locks_nothing(booted: Boot, module: bytes) -> None:
    wanted = variables()
    wanted.store(SECURE_BOOT, b"\0", SHOWN)
    kernel = booted(wanted)
    assert "secureboot: Secure boot disabled" in [record.text for record in kernel.dmesg(boot=True)]
    kernel.init_module(module, "")
    assert kernel.tainted & 1 << 13


def test_a_directory_holds_what_was_saved_and_only_that(tmp_path: Path) -> None:
    wanted = variables(OWNER.data)
    save(tmp_path, wanted)
    (tmp_path / "README").write_text("not a variable")
    assert load(tmp_path) == wanted
    del wanted[shim("MokList")]
    save(tmp_path, wanted)
    assert load(tmp_path) == wanted
    assert (tmp_path / "README").exists()
    assert Key("db", DB.guid) in wanted or DBX not in wanted

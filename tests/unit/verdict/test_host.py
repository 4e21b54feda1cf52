"""What decides besides a kernel's build: its command line, sysctl.d, what runs now, and the firmware's keys."""

from __future__ import annotations

import base64
import errno
import struct
from pathlib import Path

import pytest

from depot_roots import DepotRoot
from image_builders import RELEASE
from kobox.depot.systems import open_system
from kobox.errors import BadFile
from kobox.image import Image
from kobox.sign import Lockdown, read_certificate
from kobox.verdict.efi import certificates, firmware_certificates
from kobox.verdict.host import Policy, policy_of_boot, policy_of_live, policy_of_system
from signing import ec_identity, make_identity, signed
from verdict_kernels import CONFIG, fitting, session, small_image, subject

X509 = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")
SHA256 = bytes.fromhex("2616c4c14c509240aca941f936934328")


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [
        ("", Policy()),
        ("module.sig_enforce", {"enforced": True}),
        ("module.sig-enforce=Y", {"enforced": True}),
        ("module.sig_enforce=0", {}),
        ("lockdown=integrity", {"lockdown": Lockdown.INTEGRITY}),
        ("lockdown=confidentiality lockdown=integrity", {"lockdown": Lockdown.CONFIDENTIALITY}),
        ("lockdown=none", {}),
        ("nomodule", {"disabled": True}),
        ("nomodule=0", {}),
        ("module_blacklist=a,b-c module_blacklist=d", {"blacklist": "d"}),
        ("panic_on_taint=0x1000,nousertaint", {"panic_on_taint": 0x1000}),
        ("mitigations=off", {"spectre_v2": False}),
        ("quiet -- module.sig_enforce", {"enforced": True}),
    ],
)
def test_the_command_line_is_read_as_the_kernel_reads_it(image: Image, cmdline: str, expected: dict) -> None:
    policy = policy_of_boot(image, cmdline)
    wanted = expected if isinstance(expected, Policy) else Policy(**expected)
    assert policy._replace(enforced_by="", lockdown_by="", disabled_by="") == wanted


def test_the_build_can_enforce_and_lock_down_by_itself(tmp_path: Path) -> None:
    more = "CONFIG_MODULE_SIG_FORCE=y\nCONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y\n"
    policy = policy_of_boot(small_image(tmp_path, CONFIG + more), "")
    assert (policy.enforced, policy.lockdown) == (True, Lockdown.CONFIDENTIALITY)
    assert policy.enforced_by == "CONFIG_MODULE_SIG_FORCE=y"


def test_lockdown_needs_its_security_module(tmp_path: Path) -> None:
    late = CONFIG.replace("CONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y\n", 'CONFIG_LSM="landlock,yama"\n')
    image = small_image(tmp_path, late)
    assert policy_of_boot(image, "lockdown=integrity").lockdown is Lockdown.NONE
    assert policy_of_boot(image, "lsm=lockdown,yama lockdown=integrity").lockdown is Lockdown.INTEGRITY


def test_secure_boot_locks_down_kernels_that_are_built_for_it(image: Image, tmp_path: Path) -> None:
    assert policy_of_boot(image, "", secure_boot=True).lockdown is Lockdown.INTEGRITY
    other = small_image(tmp_path, CONFIG.replace("CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y\n", ""))
    assert policy_of_boot(other, "", secure_boot=True).lockdown is Lockdown.NONE


def test_sysctl_files_hide_each_other_by_name(tmp_path: Path) -> None:
    for place, text in (("usr/lib/sysctl.d", "kernel/modules_disabled=1"), ("etc/sysctl.d", "#")):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "10-x.conf").write_text(text)
    assert not policy_of_system(Policy(), str(tmp_path)).disabled
    (tmp_path / "etc/sysctl.conf").write_text("-kernel.modules_disabled = 1\n")
    assert policy_of_system(Policy(), str(tmp_path)).disabled


def test_a_running_kernel_says_what_holds_now(tmp_path: Path) -> None:
    for place, text in (
        ("sys/module/module/parameters/sig_enforce", "Y\n"),
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        ("proc/sys/kernel/modules_disabled", "0\n"),
        ("proc/sys/kernel/tainted", "4097\n"),
        ("proc/modules", "ext4 1000 1 - Live 0x0\nmbcache 16384 1 ext4, Live 0x0\n"),
        ("proc/self/status", "Name:\tx\nCapEff:\t00000000a80425fb\n"),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    policy = policy_of_live(Policy(), str(tmp_path))
    assert (policy.enforced, policy.lockdown, policy.disabled) == (True, Lockdown.INTEGRITY, False)
    assert (policy.loaded, policy.taints, policy.capable) == (("ext4", "mbcache"), 4097, False)
    assert policy_of_live(Policy(), str(tmp_path / "nothing")) == Policy()


# -- keys


def signature_list(kind: bytes, *entries: bytes, header: bytes = b"") -> bytes:
    size = len(entries[0]) + 16
    body = header + b"".join(bytes(16) + entry for entry in entries)
    return struct.pack("<16sIII", kind, 28 + len(body), len(header), size) + body


def test_certificates_of_signature_lists_are_found_and_hashes_passed_over() -> None:
    data = (
        signature_list(SHA256, bytes(32), bytes(32))
        + signature_list(X509, b"first")
        + signature_list(X509, b"two", b"owt")
    )
    assert list(certificates(data)) == [b"first", b"two", b"owt"]
    for cut in range(len(data)):
        assert set(certificates(data[:cut])) <= {b"first", b"two", b"owt"}
    assert list(certificates(struct.pack("<16sIII", X509, 0, 0, 0) * 3)) == []


def test_a_key_of_the_firmware_makes_a_module_trusted(image: Image, tmp_path: Path) -> None:
    place = tmp_path / "sys/firmware/efi/efivars/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"\7\0\0\0" + signature_list(X509, b"no certificate") + signature_list(X509, ec_identity().data))
    found = firmware_certificates(str(tmp_path))
    data = signed(fitting().build(), ec_identity())
    assert session(image, "module.sig_enforce", firmware_keys=found).load(subject(data)).loads
    assert firmware_certificates(str(tmp_path / "nothing")) == ()


def test_a_certificate_that_lies_about_is_offered_for_enrolling(image: Image, tmp_path: Path) -> None:
    DepotRoot(tmp_path, RELEASE).module("a.ko").write()
    place = tmp_path / "var/lib/dkms/mok.pub"
    place.parent.mkdir(parents=True)
    place.write_bytes(ec_identity().data)
    opened = open_system(str(tmp_path), RELEASE, "")
    theirs = session(image, "module.sig_enforce", system=opened).load(subject(signed(fitting().build(), ec_identity())))
    assert {note.rule: note.text for note in theirs.notes}["certificate-at-hand"].endswith(f"mokutil --import {place}")
    other = signed(fitting().build(), make_identity("another"))
    assert "certificate-at-hand" not in {note.rule for note in session(image, system=opened).load(subject(other)).notes}


def test_certificates_are_read_from_der_and_pem(tmp_path: Path) -> None:
    der, pem, odd = tmp_path / "a.der", tmp_path / "a.pem", tmp_path / "odd"
    data = ec_identity().data
    der.write_bytes(data)
    pem.write_bytes(b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE-----\n")
    odd.write_text("neither")
    assert read_certificate(str(der)) == read_certificate(str(pem)) == data
    with pytest.raises(BadFile, match=r"no X\.509 certificate"):
        read_certificate(str(odd))
    odd.write_bytes(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END")
    with pytest.raises(BadFile, match="PEM"):
        read_certificate(str(odd))


def test_who_may_not_load_modules_is_told(image: Image) -> None:
    kernel = session(image)
    kernel.host.policy = kernel.host.policy._replace(capable=False)
    verdict = kernel.load(subject(fitting()))
    assert verdict.loads
    assert "CAP_SYS_MODULE" in {note.rule: note.text for note in verdict.notes}["not-capable"]


def test_an_enrolled_key_does_not_help_a_file_that_was_changed(image: Image) -> None:
    data = bytearray(signed(fitting().build(), ec_identity()))
    data[0x180] ^= 1
    verdict = session(image, keys=[ec_identity().data]).load(subject(bytes(data)))
    assert verdict.errno == errno.EKEYREJECTED

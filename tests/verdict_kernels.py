"""A small kernel to hold modules against, made without a download, and modules that fit it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from builders import KoBuilder
from image_builders import RELEASE, BtfBuilder, KernelBuilder
from kobox.depot.systems import OpenSystem
from kobox.depot.tree import ModuleTree
from kobox.image import Cache, Image
from kobox.image.image import build_image, open_entry
from kobox.link.rules import default_rules
from kobox.verdict.host import Host, policy_of_boot
from kobox.verdict.records import Subject
from kobox.verdict.session import Session

VERMAGIC = f"{RELEASE} SMP mod_unload "
EXPORTS = (
    ("__x86_return_thunk", False, ""),
    ("module_layout", False, ""),
    ("plain", False, ""),
    ("for_gpl", True, ""),
    ("spaced", False, "SPACE"),
    ("param_ops_int", False, ""),
    ("param_ops_bool", False, ""),
    ("param_ops_charp", False, ""),
)
CONFIG = """
CONFIG_MODULES=y
CONFIG_MODULE_UNLOAD=y
CONFIG_MODVERSIONS=y
CONFIG_MODULE_SIG=y
CONFIG_MODULE_FORCE_LOAD=y
CONFIG_STRICT_MODULE_RWX=y
CONFIG_SECURITY_LOCKDOWN_LSM=y
CONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y
CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y
CONFIG_SECONDARY_TRUSTED_KEYRING=y
CONFIG_INTEGRITY_PLATFORM_KEYRING=y
CONFIG_INTEGRITY_MACHINE_KEYRING=y
CONFIG_CRYPTO_SHA256=y
CONFIG_CRYPTO_RSA=y
CONFIG_CRYPTO_ECDSA=y
"""


def crc(name: str) -> int:
    """The CRC with which the kernel exports a name."""
    return zlib.crc32(name.encode())


def types() -> bytes:
    return type_builder().build()


def type_builder() -> BtfBuilder:
    """The structures that the rules ask for, as 6.1 has them on x86-64, with few members."""
    btf = BtfBuilder()
    char, short, word = btf.int("char", 1, signed=True), btf.int("u16", 2), btf.int("unsigned int", 4)
    pointer = btf.int("unsigned long", 8)
    name = btf.array(char, 56)
    heads = btf.struct("list_head", 16, [("next", pointer, 0), ("prev", pointer, 64)])
    area = btf.struct("module_layout", 80, [("base", pointer, 0), ("size", word, 64)])
    members = [("state", word, 0), ("list", heads, 64), ("name", name, 24 * 8), ("kp", pointer, 160 * 8)]
    members += [("core_layout", area, 320 * 8), ("init_layout", area, 400 * 8)]
    btf.struct("module", 896, members)
    for other, size in default_rules().sizes.items():
        if other not in ("module", "kernel_param"):
            btf.struct(other, size, [])
    fields = ["name", "mod", "ops"]
    param = [(field, pointer, number * 64) for number, field in enumerate(fields)]
    param += [("perm", short, 192), ("level", char, 208), ("flags", char, 216), ("arg", pointer, 256)]
    btf.struct("kernel_param", 40, param)
    btf.struct("kernel_param_ops", 32, [("flags", word, 0), ("set", pointer, 64)])
    btf.struct("kparam_string", 16, [("maxlen", word, 0), ("string", pointer, 64)])
    return btf


def small_image(folder: Path, config: str = CONFIG) -> Image:
    """The kernel as an image; ``folder`` holds its cache entry."""
    kernel = KernelBuilder(exports=EXPORTS, btf=types(), fillers=600)
    return open_entry(build_image(Cache(folder), kernel.packed(), config.encode(), "vmlinuz"))


def fitting(name: str = "fits", **modinfo: str | list[str]) -> KoBuilder:
    """A module that this kernel loads: right vermagic, right CRCs."""
    module = KoBuilder(name).module(**({"vermagic": VERMAGIC} | modinfo))
    return module.version("module_layout", crc("module_layout"))


def using(name: str, *symbols: str, **modinfo: str | list[str]) -> KoBuilder:
    """A fitting module that needs these symbols, with the kernel's CRCs of those that it exports."""
    module = fitting(name, **modinfo)
    exported = {export for export, _, _ in EXPORTS}
    for symbol in symbols:
        module.undefined(symbol)
        if symbol in exported:
            module.version(symbol, crc(symbol))
    return module


def subject(module: KoBuilder | bytes, name: str = "") -> Subject:
    data = module if isinstance(module, bytes) else module.build()
    return Subject(name or f"{module.name if isinstance(module, KoBuilder) else 'file'}.ko", data)


def session(
    image: Image, cmdline: str = "", *, root: Path | None = None, system: OpenSystem | None = None, **options: Any
) -> Session:
    """A fresh kernel of that command line. ``root`` holds module files."""
    tree = system.tree if system is not None else ModuleTree.at(root) if root is not None else None
    secure = options.pop("secure_boot", False)
    policy = policy_of_boot(image, cmdline, secure)
    return Session(Host(image, image.release, policy, cmdline=cmdline, tree=tree, system=system, **options))

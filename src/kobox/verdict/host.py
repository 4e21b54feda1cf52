"""The kernel that a module is held against: an image, and what its command line, its system or this host add to it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from kobox import sign
from kobox.depot.systems import OpenSystem
from kobox.depot.tree import ModuleTree
from kobox.errors import Errno
from kobox.image import Image
from kobox.kernel import params
from kobox.kernel.demands import KernelExports, keyrings_of, rules_of
from kobox.link import Rules

_LOCKDOWN = {b"integrity": sign.Lockdown.INTEGRITY, b"confidentiality": sign.Lockdown.CONFIDENTIALITY}
_NO_MITIGATION = {b"mitigations": b"off", b"spectre_v2": b"off", b"nospectre_v2": None}
_CAP_SYS_MODULE = 16


class Policy(NamedTuple):
    """What decides besides the build. ``enforced``, ``lockdown`` and ``disabled`` say in ``*_by`` where they come
    from."""

    enforced: bool = False
    enforced_by: str = ""
    lockdown: sign.Lockdown = sign.Lockdown.NONE
    lockdown_by: str = ""
    disabled: bool = False
    disabled_by: str = ""
    blacklist: str = ""
    taints: int = 0
    panic_on_taint: int = 0
    spectre_v2: bool = True
    loaded: tuple[str, ...] = ()
    capable: bool = True
    """The process that asks may load modules."""


class Host:
    """``tree`` and ``system`` are None where there is only a kernel. ``keys`` are certificates (DER) that somebody says
    are enrolled, ``firmware_keys`` those that the machine shows; what of the latter cannot be used is passed over."""

    is_whole = True
    """What it does not have, no kernel of its release has."""

    def __init__(
        self,
        image: Image,
        label: str,
        policy: Policy,
        *,
        cmdline: str = "",
        tree: ModuleTree | None = None,
        system: OpenSystem | None = None,
        keys: Iterable[bytes] = (),
        firmware_keys: Iterable[bytes] = (),
    ) -> None:
        self.image, self.label, self.policy = image, label, policy
        self.cmdline, self.tree, self.system = cmdline, tree, system
        self._keys, self._firmware_keys = tuple(keys), tuple(firmware_keys)
        self.kernel = KernelExports(image)

    @cached_property
    def rules(self) -> Rules:
        return rules_of(self.image)

    @cached_property
    def rings(self) -> sign.Keyrings:
        rings = keyrings_of(self.image)
        for data in self._firmware_keys:
            with suppress(Errno):
                rings = rings.with_keys(sign.PLATFORM, [data])
        ring = sign.MACHINE if self.image.config.enabled("INTEGRITY_MACHINE_KEYRING") else sign.PLATFORM
        return rings.with_keys(ring, self._keys) if self._keys else rings

    def enrolling(self, certificate: bytes, data: bytes) -> bool:
        """Whether the file would be trusted if this certificate (DER) were enrolled."""
        try:
            rings = self.rings.with_keys(sign.MACHINE, [certificate])
        except Errno:
            return False
        return sign.verify_signature(data, rings).trusted

    def check_signature(self, data: bytes, flags: int, comm: str) -> sign.Check:
        """What this kernel makes of a file's signature."""
        policy = self.policy
        return sign.check(
            data,
            lambda content: sign.verify_signature(content, self.rings),
            flags=flags,
            enforced=policy.enforced,
            lockdown=policy.lockdown,
            comm=comm,
        )

    @cached_property
    def objects(self) -> frozenset[str]:
        """Names below /sys/module that built-in code with parameters or a version holds from boot on. Newer kernels add
        those of built-in drivers, which only running tells."""
        return frozenset(_objects(self.image))

    @property
    def vmalloc(self) -> int:
        """Where memory from vmalloc() starts, if the kernel does not move it at boot; 0 when it does not say."""
        base = self.image.symbols.get("vmalloc_base")
        return 0 if base is None else self.image.read_int(base)


def policy_of_boot(image: Image, cmdline: str, secure_boot: bool = False) -> Policy:
    """What the kernel does when it is booted with this command line."""
    config = image.config
    policy = Policy()
    if config.get("MODULE_SIG_FORCE") == "y":
        policy = policy._replace(enforced=True, enforced_by="CONFIG_MODULE_SIG_FORCE=y")
    early = config.get("SECURITY_LOCKDOWN_LSM_EARLY") == "y" or "lockdown" in _lsms(config.get("LSM", ""), cmdline)
    has_lockdown = config.get("SECURITY_LOCKDOWN_LSM") == "y" and early
    for word, level in _LOCKDOWN.items():
        if has_lockdown and config.get(f"LOCK_DOWN_KERNEL_FORCE_{word.decode().upper()}") == "y":
            where = f"CONFIG_LOCK_DOWN_KERNEL_FORCE_{word.decode().upper()}=y"
            policy = policy._replace(lockdown=level, lockdown_by=where)
    if secure_boot and has_lockdown and config.get("LOCK_DOWN_IN_EFI_SECURE_BOOT") == "y":
        policy = _locked(policy, sign.Lockdown.INTEGRITY, "Secure Boot (CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y)")
    for argument in params.arguments(cmdline.encode("latin-1", "replace")):
        policy = _with_argument(policy, argument, has_lockdown)
    return policy


def _lsms(built: str, cmdline: str) -> list[str]:
    chosen = built
    for word in cmdline.split():
        if word.startswith("lsm="):
            chosen = word.removeprefix("lsm=")
    return chosen.split(",")


def _with_argument(policy: Policy, argument: params.Argument, has_lockdown: bool) -> Policy:
    name, value = argument.name, argument.value
    said = name.decode("latin-1") + ("" if value is None else f"={value.decode('latin-1')}")
    where = f"{said} on the kernel command line"
    if params.same_name(name, "module_blacklist"):
        return policy._replace(blacklist=(value or b"").decode("latin-1"))
    if params.same_name(name, "module.sig_enforce") and _is_true(value):
        return policy._replace(enforced=True, enforced_by=where)
    if name == b"lockdown" and has_lockdown and value in _LOCKDOWN:
        return _locked(policy, _LOCKDOWN[value], where)
    if name == b"nomodule" and _is_true(value):
        return policy._replace(disabled=True, disabled_by=where)
    if name == b"panic_on_taint":
        return policy._replace(panic_on_taint=_mask(value))
    if name in _NO_MITIGATION and value == _NO_MITIGATION[name]:
        return policy._replace(spectre_v2=False)
    return policy


def _locked(policy: Policy, level: sign.Lockdown, where: str) -> Policy:
    """Lockdown only ever rises."""
    return policy._replace(lockdown=level, lockdown_by=where) if level > policy.lockdown else policy


def _is_true(value: bytes | None) -> bool:
    try:
        return value is None or params.parse_bool(value)
    except Errno:
        return False


def _mask(value: bytes | None) -> int:
    try:
        return int((value or b"").partition(b",")[0], 16)
    except ValueError:
        return 0


def policy_of_system(policy: Policy, root: str) -> Policy:
    """With what the system's ``sysctl.d`` sets once it is up."""
    for place in _sysctl_files(root):
        for line in place.read_text(errors="replace").splitlines():
            key, equals, value = line.partition("=")
            if (
                equals
                and key.strip().lstrip("-").replace("/", ".") == "kernel.modules_disabled"
                and value.strip() == "1"
            ):
                return policy._replace(disabled=True, disabled_by=f"kernel.modules_disabled = 1 in {place}")
    return policy


def _sysctl_files(root: str) -> list[Path]:
    folders = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d")
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(Path(root or "/", folder).glob("*.conf")):
            found.setdefault(path.name, path)
    main = Path(root or "/", "etc/sysctl.conf")
    return [path for path in (*found.values(), main) if path.is_file()]


def policy_of_live(policy: Policy, root: str = "") -> Policy:
    """With what the kernel that runs this machine says of itself; ``root`` is where its /proc and /sys are."""
    enforce = Path(f"{root}/sys/module/module/parameters/sig_enforce")
    if _read(enforce) == "Y":
        policy = policy._replace(enforced=True, enforced_by=policy.enforced_by or str(enforce))
    lockdown = Path(f"{root}/sys/kernel/security/lockdown")
    word = _read(lockdown).partition("[")[2].partition("]")[0]
    policy = _locked(policy, _LOCKDOWN.get(word.encode(), sign.Lockdown.NONE), str(lockdown))
    disabled = Path(f"{root}/proc/sys/kernel/modules_disabled")
    if _read(disabled) == "1":
        policy = policy._replace(disabled=True, disabled_by=str(disabled))
    loaded = tuple(line.split()[0] for line in _read(Path(f"{root}/proc/modules")).splitlines() if line)
    taints = _read(Path(f"{root}/proc/sys/kernel/tainted"))
    effective = _read(Path(f"{root}/proc/self/status")).partition("CapEff:")[2].split()[:1]
    capable = not effective or bool(int(effective[0], 16) >> _CAP_SYS_MODULE & 1)
    return policy._replace(loaded=loaded, taints=int(taints) if taints.isdecimal() else 0, capable=capable)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _objects(image: Image) -> Iterable[str]:
    """``param_sysfs_builtin`` and ``version_sysfs_builtin``: whoever has a visible parameter, or a version."""
    entry = image.btf.struct("kernel_param")
    name_at, perm_at = entry.offset_of("name"), entry.offset_of("perm")
    table = image.between("__start___param", "__stop___param")
    for start in range(0, len(table) - entry.size + 1, entry.size):
        (perm,) = struct.unpack_from("<H", table, start + perm_at)
        if perm:
            owner, dot, _ = image.string(struct.unpack_from("<Q", table, start + name_at)[0]).partition(".")
            yield owner if dot else "kernel"
    version = image.btf.find_struct("module_version_attribute")
    if version is not None:
        versions = image.between("__start___modver", "__stop___modver")
        at = version.offset_of("module_name")
        for start in range(0, len(versions) - version.size + 1, version.size):
            yield image.string(struct.unpack_from("<Q", versions, start + at)[0])

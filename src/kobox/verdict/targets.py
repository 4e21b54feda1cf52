"""The systems a module can be held against, by how people name them: an image, a root directory, this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from kobox.bare.data import BareData
from kobox.depot.systems import OpenSystem, open_system, read_cmdline
from kobox.depot.tree import ModuleTree
from kobox.errors import BadFile, UsageError
from kobox.image import Image, find_image, list_images, open_image
from kobox.ko import read_module
from kobox.sign import read_certificate
from kobox.verdict.efi import firmware_certificates
from kobox.verdict.host import Host, policy_of_boot, policy_of_live, policy_of_system

Progress = Callable[[str], None]


BARE = "bare"
"""The name of the kernel that needs no image."""


class Options(NamedTuple):
    """``cmdline`` None: the system's own, if it shows one. ``keys`` are certificate files."""

    cmdline: str | None = None
    release: str | None = None
    secure_boot: bool = False
    keys: Sequence[str] = ()


def host_of_image(name: str, options: Options, progress: Progress, root: str | None = None) -> Host:
    """An added image or a kernel file, with the image's own modules; with ``root``, its modules and configuration."""
    image = open_image(name, progress=progress)
    cmdline = options.cmdline or ""
    system = open_system(root, image.release, cmdline) if root is not None else None
    tree = system.tree if system is not None else ModuleTree.at(image.modules) if image.modules is not None else None
    return _host(image, name if os.sep not in name else image.release, cmdline, tree, system, options)


def host_of_root(root: str, options: Options, progress: Progress) -> Host:
    """A root directory: its kernel, modules, configuration and ``sysctl.d``."""
    system = open_system(root, options.release, options.cmdline)
    release = system.tree.release
    image = _image_of_root(system.root, release, progress)
    host = _host(image, f"{release} in {root}", system.cmdline, system.tree, system, options)
    host.policy = policy_of_system(host.policy, system.root)
    return host


def host_of_live(options: Options, progress: Progress) -> Host:
    """This machine as it runs; nothing is changed."""
    release = os.uname().release
    cmdline = options.cmdline if options.cmdline is not None else read_cmdline("/proc/cmdline") or ""
    system = open_system("", release, cmdline)
    image = open_image(release, progress=progress)
    host = _host(image, f"this machine ({release})", cmdline, system.tree, system, options, firmware_certificates())
    host.policy = policy_of_live(host.policy)
    return host


def default_images(release: str) -> list[str]:
    """What a module is held against when nothing is said: the kernel of its own release, else every added image; with
    none of them the bare kernel, if it is of that release."""
    if release and (find_image(release) is not None or os.access(f"/boot/vmlinuz-{release}", os.R_OK)):
        return [release]
    added = [image.release for image in list_images()]
    if not added and release == BareData().release:
        return [BARE]
    if not added:
        what = f"no image of its release {release} is added" if release else "no image is added"
        raise UsageError(what, hint="kobox kernel add --debian, or --root DIR, --live")
    return added


def release_of(path: str) -> str:
    """The release that a module file was built for; empty when it does not say."""
    try:
        magic = read_module(path).modinfo.get("vermagic") or ""
    except BadFile:
        return ""
    return magic.partition(" ")[0]


def _image_of_root(root: str, release: str, progress: Progress) -> Image:
    for place in (f"boot/vmlinuz-{release}", f"lib/modules/{release}/vmlinuz", f"usr/lib/modules/{release}/vmlinuz"):
        kernel = Path(root or "/", place)
        if kernel.is_file():
            return open_image(kernel, progress=progress)
    if find_image(release) is not None:
        return open_image(release, progress=progress)
    hint = f"kobox kernel add a package with it, or --image R --root {root}"
    raise UsageError(f"{root}: has modules of {release}, but no kernel of that release", hint)


def _host(
    image: Image,
    label: str,
    cmdline: str,
    tree: ModuleTree | None,
    system: OpenSystem | None,
    options: Options,
    firmware_keys: Sequence[bytes] = (),
) -> Host:
    policy = policy_of_boot(image, cmdline, options.secure_boot)
    keys = [read_certificate(path) for path in options.keys]
    return Host(image, label, policy, cmdline=cmdline, tree=tree, system=system, keys=keys, firmware_keys=firmware_keys)

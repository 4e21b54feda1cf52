"""Ways to add an image: Debian packages, an unpacked root, a kernel file, or apt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kobox.errors import UsageError
from kobox.image import apt
from kobox.image.cache import Cache
from kobox.image.deb import Deb, extract, read_deb
from kobox.image.image import Image, Progress
from kobox.image.store import (
    Added,
    Found,
    add_image,
    beside,
    kernels_of,
    look_for_kernel,
    workspace,
)


@dataclass(frozen=True, slots=True)
class AddOptions:
    """``modules`` is the module tree of a kernel file that has none beside it."""

    modules: Path | None = None
    cache: Cache | None = None
    progress: Progress = lambda text: None


def add_paths(paths: Sequence[Path], options: AddOptions) -> tuple[Added, Image]:
    """Add what the paths are: packages of one kernel (image, modules, headers), or one root or kernel file."""
    if all(path.suffix in (".deb", ".udeb") for path in paths):
        return add_packages(paths, options)
    if len(paths) != 1:
        raise UsageError("several paths must all be .deb packages of one kernel")
    found = look_for_kernel(paths[0])
    if options.modules is not None:
        if not options.modules.is_dir():
            raise UsageError(f"{options.modules}: no such directory")
        found = Found(found.kernel, found.config, options.modules, found.root)
    kind = "root" if paths[0].is_dir() else "file"
    source = str(paths[0].absolute())
    return add_image(found, kind=kind, source=source, cache=options.cache, progress=options.progress)


def add_packages(
    paths: Sequence[Path], options: AddOptions, *, kind: str = "deb", origin: str = "", checked: str = ""
) -> tuple[Added, Image]:
    """Unpack packages into the store and add the kernel they hold."""
    debs = [read_deb(path) for path in paths]
    with workspace() as work:
        root = work / "root"
        for deb in debs:
            options.progress(f"unpacking {deb.path.name}")
            extract(deb, root)
        _merge_usr(root)
        found = _kernel_of(root, debs)
        source = f"{', '.join(f'{deb.package} {deb.version}' for deb in debs)}{f' ({origin})' if origin else ''}"
        return add_image(
            found,
            kind=kind,
            source=source,
            checked=checked,
            own=root,
            cache=options.cache,
            progress=options.progress,
        )


def add_debian(
    release: str | None, options: AddOptions, *, suite: str | None = None, headers: bool = False
) -> tuple[Added, Image]:
    """Fetch a kernel of Debian's through apt and add it."""
    with workspace() as work:
        got = apt.download(release, work, suite=suite, headers=headers, progress=options.progress)
        return add_packages(got.files, options, kind="apt", origin=got.origin, checked="apt's signatures")


def _kernel_of(root: Path, debs: Sequence[Deb]) -> Found:
    kernels = kernels_of(root)
    names = ", ".join(deb.path.name for deb in debs)
    if len(kernels) != 1:
        what = "several kernels" if kernels else "no kernel"
        raise UsageError(
            f"{names}: {what} in there", "give all packages of one kernel: linux-image, linux-binary, linux-modules"
        )
    return beside(kernels[0], root)


def _merge_usr(root: Path) -> None:
    """Newer packages have ``usr/lib/modules``, a merged system sees them as ``lib/modules``; so does this root."""
    merged, modules = root / "usr/lib/modules", root / "lib/modules"
    if merged.is_dir() and not modules.exists():
        modules.parent.mkdir(parents=True, exist_ok=True)
        merged.rename(modules)

"""For which kernels modules are built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kobox.errors import UsageError
from kobox.image import list_images, open_image


def releases_of(images: Sequence[str]) -> list[str]:
    """The releases of the images asked for; see ``kernels_of``."""
    return [release for _, release in kernels_of(images)]


def kernels_of(images: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Image and release of each that was asked for: a release stands for itself, added or not; a path is looked at.
    Without any, the newest added image, else this host's kernel."""
    if images:
        return tuple(dict.fromkeys((image, _release_of(image)) for image in images))
    added = list_images()
    if added:
        return ((added[-1].release, added[-1].release),)
    here = os.uname().release
    if Path("/lib/modules", here, "build").is_dir():
        return ((here, here),)
    raise UsageError("build for which kernel? No image is added", "kobox kernel add --debian, or --image RELEASE")


def _release_of(image: str) -> str:
    if image == "bare":
        raise UsageError("the bare kernel has no headers", "modules built for 6.1.0-56-amd64 load there")
    return open_image(image).release if os.sep in image or os.path.exists(image) else image

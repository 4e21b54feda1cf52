"""The distribution's kernel as a whole: what it exports agrees with what its symbols, types and modules say."""

from pathlib import Path

import pytest

from kobox.image import Image

pytestmark = pytest.mark.image


def test_the_root_holds_a_kernel_and_modules(debian_root: Path, debian_image: Image) -> None:
    assert (debian_root / "boot" / f"vmlinuz-{debian_image.release}").is_file()
    assert (debian_root / "lib/modules" / debian_image.release / "kernel").is_dir()

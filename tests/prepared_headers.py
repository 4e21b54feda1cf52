"""Trees that look like prepared kernel headers, made for a test."""

from __future__ import annotations

from pathlib import Path


def prepared(root: Path, release: str, compiler: str = "gcc (GCC) 99.9.9") -> Path:
    """A tree of a release below ``root``, where Debian has it; its kernel was built by ``compiler``."""
    directory = root / f"usr/src/linux-headers-{release}"
    for name, text in {
        "Makefile": "modules:\n",
        "Module.symvers": "",
        "include/config/auto.conf": f"CONFIG_MODULES=y\nCONFIG_DEBUG_INFO=y\nCONFIG_CC_VERSION_TEXT={compiler}\n",
        "include/generated/utsrelease.h": f'#define UTS_RELEASE "{release}"\n',
    }.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory

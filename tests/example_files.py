"""The example modules for whatever kernel a test has: the prebuilt ones, or, for another release, built for it.

Debian's archive keeps only the newest build of a kernel. When it has moved on from the release that ``prebuilt`` is
for, the same sources are compiled against the headers of the one it has, once, and kept beside the image.
"""

from __future__ import annotations

import fcntl
import functools
import json
from pathlib import Path

from rebuild_examples import MADE_WITH, build

from headers import kept_folder, kernel_headers

PREBUILT = Path(__file__).resolve().parent.parent / "examples/prebuilt"
BUILT_FOR: str = json.loads((PREBUILT / MADE_WITH).read_text())["release"]


def example_file(release: str, name: str) -> Path:
    """The file of an example (``hello``, ``hostile/overrun``) for a kernel of this release."""
    return examples_for(release) / f"{name}.ko"


@functools.cache
def examples_for(release: str) -> Path:
    """A folder with all examples for this release."""
    if BUILT_FOR in release:  # the bare kernel names the release that it stands for
        return PREBUILT
    headers = kernel_headers(release)
    assert headers.release == release, f"the archive has headers of {headers.release}, the kernel is {release}"
    out = kept_folder() / f"examples-{release}"
    out.mkdir(parents=True, exist_ok=True)
    with open(kept_folder() / f"examples-{release}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / MADE_WITH).exists():
            build(headers, out)
    return out

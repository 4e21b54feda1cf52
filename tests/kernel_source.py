"""The kernel's own tests and samples as source: of the installed linux-source package, or of apt's; unpacked once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

import build_kernel_tests

from headers import kept_folder, kernel_headers
from kobox.errors import KoboxError
from kobox.image.apt import download_packages
from needs import lacking

_ANYWHERE = ("*test*.c", "*kunit*.c", "*kunit*.h", "*/samples/*", "*/tools/testing/kunit/*")
_FOLDERS = (
    "lib/*", "lib/math/*", "lib/kunit/*", "lib/tests/*", "lib/livepatch/*", "kernel/*test.c", "kernel/*.h",
    "kernel/locking/*test*", "kernel/locking/locktorture.c", "kernel/time/*test*", "kernel/trace/*test*",
    "kernel/trace/*.h", "mm/*.h", "fs/ext4/*.h", "fs/fat/*.h", "net/mptcp/*.h", "drivers/base/*.h", "drivers/hid/*.h",
    "drivers/clk/*.h", "drivers/gpu/drm/*.h", "drivers/gpu/drm/lib/*", "drivers/gpu/drm/display/*.h",
    "drivers/platform/chrome/*.h", "drivers/thunderbolt/*.h", "security/apparmor/include/*",
    "tools/testing/selftests/kselftest_module.h",
)  # fmt: skip
"""Tests, and the headers of their drivers that they include."""


def kernel_source(release: str, suite: str | None = None) -> Path:
    """The tests, samples and KUnit of the source that ``release`` was built of (or a later one of its series)."""
    version = ".".join(release.split(".")[:2])
    folder = kept_folder().parent / f"source-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            try:
                _unpack(version, suite, folder)
            except (KoboxError, OSError, subprocess.CalledProcessError) as error:
                lacking(f"source of Linux {version}: {error}")
                raise
            (folder / "done").touch()
    return folder / "linux"


def _unpack(version: str, suite: str | None, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archives = sorted(Path("/usr/src").glob(f"linux-source-{version}.tar.*"))
        if not archives:
            files = download_packages([f"linux-source-{version}"], Path(scratch), suite=suite, progress=print)
            subprocess.run(["dpkg-deb", "-x", str(files[0]), f"{scratch}/package"], check=True)
            archives = sorted(Path(scratch).glob("package/usr/src/linux-source-*.tar.*"))
        (folder / "linux").mkdir(exist_ok=True)
        command = ["tar", "-xf", str(archives[0]), "-C", str(folder / "linux"), "--strip-components=1", "--wildcards"]
        near = ("--no-wildcards-match-slash", *(f"*/{pattern}" for pattern in _FOLDERS))
        # a pattern that one release has nothing for is no error of the others
        done = subprocess.run([*command, *_ANYWHERE, *near], capture_output=True, text=True, check=False)
        if not (folder / "linux/lib").is_dir():
            raise KoboxError(f"{archives[0]}: {done.stderr.strip()[-200:]}")


def kernel_tests(release: str, suite: str | None = None) -> Path:
    """A folder with the kernel's test modules and samples that ``tools/build_kernel_tests.py`` names, built once for
    this release."""
    headers = kernel_headers(release)
    if headers.release != release:
        lacking(f"headers of {release}")
    key = hashlib.sha256(Path(build_kernel_tests.__file__).read_bytes()).hexdigest()[:12]
    out = kept_folder() / f"kernel-tests-{release}-{key}"
    with open(kept_folder() / f"kernel-tests-{release}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "built.json").exists():
            source = kernel_source(release, suite)
            with tempfile.TemporaryDirectory() as scratch:
                work = Path(scratch).resolve() / "linux"
                build_kernel_tests.copy_source(source, work)
                outcomes = build_kernel_tests.build(headers, work, out)
            (out / "built.json").write_text(json.dumps({one.name: one.reason for one in outcomes}))
    return out

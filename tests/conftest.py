"""Fixtures that several folders share: the distribution's image, fetched once and kept between runs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kobox.errors import KoboxError
from kobox.image import Added, Cache, Image, find_image, open_image
from kobox.image.adding import AddOptions, add_debian, add_paths
from needs import lacking

RELEASE = os.environ.get("KOBOX_TEST_RELEASE", "6.1.0-56-amd64")
"""A release, or a flavour such as ``amd64`` for the host suite's current kernel."""
ARCHIVED = "bookworm@20261120"
"""A day on which the archive had it."""


@pytest.fixture(scope="session", autouse=True)
def _no_sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands act on a running session by themselves: tests see none but their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        patch.delenv("KOBOX_SESSION", raising=False)
        yield


def _test_store() -> Path:
    """Kept between runs: ``$KOBOX_TEST_CACHE``, else a directory in the user's cache."""
    own = os.environ.get("KOBOX_TEST_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kobox-tests"


@pytest.fixture(scope="session")
def debian_root() -> Path:
    """An unpacked root of Debian's kernel: ``boot/vmlinuz-*``, ``boot/config-*`` and ``lib/modules/*``. Fetched as
    ``kobox kernel add --debian`` does; ``$KOBOX_TEST_DEB`` names packages to take instead (colons between them)."""
    packages = [Path(name) for name in os.environ.get("KOBOX_TEST_DEB", "").split(":") if name]
    if packages:
        return _kept_root(RELEASE, lambda: add_paths(packages, AddOptions())[0])
    return _kept_root(RELEASE, _fetch_debian)


@pytest.fixture(scope="session")
def debian_image(debian_root: Path) -> Image:
    """The same kernel, opened; its cache entry is kept between runs too."""
    return open_image(debian_root, Cache(_test_store() / "cache"))


@pytest.fixture(scope="session")
def trixie_root() -> Path:
    """The same of Debian 13's kernel, whose tables, names and layouts differ."""
    return _kept_root("trixie", lambda: add_debian(None, AddOptions(), suite="trixie")[0])


@pytest.fixture(scope="session")
def newest_root() -> Path:
    """The newest kernel that Debian builds for its stable release: what it is changes every few weeks."""
    return _kept_root("newest", lambda: add_debian("amd64", AddOptions(), suite="trixie-backports")[0])


@pytest.fixture(scope="session")
def trixie_image(trixie_root: Path) -> Image:
    """Debian 13's kernel, opened."""
    return open_image(trixie_root, Cache(_test_store() / "cache"))


def _fetch_debian() -> Added:
    """The release that examples and recorded data are of; once the archive has dropped it, as of the day it had it."""
    try:
        return add_debian(RELEASE, AddOptions())[0]
    except KoboxError:
        return add_debian(RELEASE, AddOptions(), suite=ARCHIVED)[0]


def _kept_root(name: str, fetch: Callable[[], Added]) -> Path:
    """The root of the image kept under this name, fetched when it is not there: once, whatever runs beside this."""
    store = _test_store()
    store.mkdir(parents=True, exist_ok=True)
    known = store / f"release-{name}"
    with pytest.MonkeyPatch.context() as patch, open(store / f"lock-{name}", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("KOBOX_DATA_DIR", str(store / "data"))
        patch.setenv("KOBOX_CACHE_DIR", str(store / "cache"))
        added = find_image(known.read_text()) if known.is_file() else None
        if added is None or not Path(added.root).is_dir():
            try:
                added = fetch()
            except (KoboxError, OSError) as error:
                lacking(f"Debian's kernel {name} could not be fetched: {error}")
                raise
            known.write_text(added.release)
        return Path(added.root)


@pytest.fixture(scope="session")
def kobox_image(debian_root: Path) -> str:
    """What the fixture ``kernel`` boots in kobox's own tests: Debian's kernel, with snapshots in the test cache."""
    os.environ.setdefault("KOBOX_CACHE_DIR", str(_test_store() / "cache"))
    return str(debian_root)

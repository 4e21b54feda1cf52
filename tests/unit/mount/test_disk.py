"""Images are locked while they are mounted, and may begin anywhere in a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kobox.devices.backing import Backing, FileBacking
from kobox.errors import KoboxError, UsageError
from kobox.mount.disk import ImageLock, Rest, lock_holder


@pytest.fixture
def image(tmp_path: Path) -> str:
    (tmp_path / "image").write_bytes(bytes(range(256)) * 16)
    return str(tmp_path / "image")


def test_one_writes_or_many_read(image: str) -> None:
    one, other = ImageLock(image, read_only=True), ImageLock(image, read_only=True)
    with pytest.raises(KoboxError, match=f"mounted already by process {os.getpid()}"):
        ImageLock(image, read_only=False)
    one.release()
    other.release()
    assert lock_holder(image) is None
    writer = ImageLock(image, read_only=False)
    assert lock_holder(image) == os.getpid()
    with pytest.raises(KoboxError, match="mounted already"):
        ImageLock(image, read_only=True)
    writer.release()


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        ImageLock(str(tmp_path / "none"), read_only=True)
    with pytest.raises(UsageError, match="neither a file nor a block device"):
        ImageLock(str(tmp_path), read_only=True)


def test_the_rest_of_a_file_is_a_disk_of_its_own(image: str) -> None:
    rest = Rest(FileBacking(image), 1024)
    assert isinstance(rest, Backing)
    assert rest.size == 3072
    assert rest.read(5, 3) == bytes([5, 6, 7])
    rest.write(0, b"ab")
    room = bytearray(4)
    rest.read_into(1, [memoryview(room)[:1], memoryview(room)[1:]])
    assert room == b"b\2\3\4"
    rest.write_from(3070, [memoryview(b"y"), memoryview(b"z")])
    rest.flush()
    content = Path(image).read_bytes()
    assert content[1024:1026] == b"ab"
    assert content[-2:] == b"yz"
    assert len(content) == 4096

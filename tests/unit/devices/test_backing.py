"""What lies behind a disk, and how its contents at a mark come back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kobox.devices.backing import Backing, FileBacking, MemoryBacking, Undo

SIZE = 200_000
WRITES = st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=70_000)), max_size=6)


class Plain:
    """The least that a backing may be."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.size = len(data)

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self.data[offset : offset + count])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None: ...


def write_all(undo: Undo, writes: list[tuple[int, bytes]]) -> None:
    for offset, data in writes:
        data = data[: SIZE - offset]
        undo.write_from(offset, [memoryview(data)[: len(data) // 2], memoryview(data)[len(data) // 2 :]])


@given(WRITES, WRITES, WRITES, st.booleans())
def test_contents_at_a_mark_come_back_from_any_later_one(
    first: list[tuple[int, bytes]], second: list[tuple[int, bytes]], third: list[tuple[int, bytes]], bulk: bool
) -> None:
    start = bytes(range(256)) * (SIZE // 256 + 1)
    inner = (MemoryBacking if bulk else Plain)(start[:SIZE])
    undo = Undo(inner)
    write_all(undo, first)
    lower, at_lower = undo.mark(), bytes(inner.data)
    write_all(undo, second)
    upper, at_upper = undo.mark(), bytes(inner.data)
    write_all(undo, third)
    for _ in range(2):
        undo.back_to(upper)
        assert inner.data == at_upper
        write_all(undo, third)
    undo.back_to(lower)
    assert inner.data == at_lower
    write_all(undo, second)
    assert inner.data == at_upper
    undo.back_to(lower)
    assert inner.data == at_lower


@pytest.mark.parametrize("make", [MemoryBacking, Plain])
def test_parts_are_filled_one_after_the_other(make: type[MemoryBacking | Plain]) -> None:
    undo = Undo(make(bytes(range(200))))
    parts = [memoryview(bytearray(3)), memoryview(bytearray(0)), memoryview(bytearray(5))]
    undo.read_into(100, parts)
    assert b"".join(parts) == bytes(range(100, 108))


def test_a_file_takes_more_parts_than_one_system_call_does(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(8192))
    backing = FileBacking(path)
    backing.write_from(1, [memoryview(bytes([number % 251])) for number in range(5000)])
    backing.flush()
    assert path.read_bytes()[1:5001] == bytes(number % 251 for number in range(5000))
    parts = [memoryview(bytearray(1)) for _ in range(5000)]
    backing.read_into(1, parts)
    assert b"".join(parts) == path.read_bytes()[1:5001]
    backing.close()


def test_a_file_that_was_cut_reads_as_zeros_behind_its_end(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 4096)
    backing = FileBacking(path, read_only=True)
    path.write_bytes(b"x" * 100)
    part = memoryview(bytearray(b"?" * 512))
    backing.read_into(0, [part])
    assert bytes(part) == b"x" * 100 + bytes(412)
    with pytest.raises(OSError, match="Bad file descriptor"):
        backing.write(0, b"y")


def test_a_backing_that_answers_less_than_was_asked_is_an_error() -> None:
    undo = Undo(Plain(b"short"))
    with pytest.raises(OSError, match="5 bytes read at 0x0, 8 expected"):
        undo.read_into(0, [memoryview(bytearray(8))])


def test_what_a_backing_needs_is_told_from_its_methods() -> None:
    assert isinstance(Plain(b""), Backing)
    assert not isinstance(b"", Backing)

"""A tree in memory, mounted on this host: what programs do with it reaches its methods, and comes back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kobox.errors import GuestError
from kobox.fuse import Session, SessionOptions
from memory_tree import MemoryTree, Node, found, served
from needs import need_fuse


@pytest.fixture
def tree() -> MemoryTree:
    tree = MemoryTree()
    tree.add(tree.root, b"file", stat.S_IFREG | 0o644, b"what it holds")
    tree.add(tree.root, b"unsized", stat.S_IFREG | 0o644, b"?")
    return tree


@pytest.fixture
def mounted(tree: MemoryTree, tmp_path: Path) -> Iterator[Path]:
    need_fuse()
    with served(tmp_path, tree):
        yield tmp_path


def test_files_are_read_written_and_made(mounted: Path, tree: MemoryTree) -> None:
    assert (mounted / "file").read_bytes() == b"what it holds"
    (mounted / "new").write_bytes(b"of a program")
    assert found(tree, b"new").content == b"of a program"
    assert (mounted / "new").stat().st_size == 12
    with open(mounted / "new", "r+b") as file:
        file.truncate(2)
    assert found(tree, b"new").content == b"of"


def test_large_content_arrives_as_it_is(mounted: Path, tree: MemoryTree) -> None:
    content = os.urandom((5 << 20) + 123)
    (mounted / "large").write_bytes(content)
    assert found(tree, b"large").content == content
    found(tree, b"large").content.extend(b"more")
    os.stat(mounted / "large")
    with open(mounted / "large", "rb") as file:
        assert file.read(len(content)) == content


def test_names_come_and_go(mounted: Path, tree: MemoryTree) -> None:
    (mounted / "folder").mkdir(mode=0o750)
    assert stat.S_IMODE(found(tree, b"folder").mode) == 0o750
    os.rename(mounted / "file", mounted / "folder/moved")
    os.symlink("folder/moved", mounted / "link")
    os.link(mounted / "folder/moved", mounted / "twin")
    assert (mounted / "link").read_bytes() == b"what it holds"
    assert os.stat(mounted / "twin").st_ino == os.stat(mounted / "folder/moved").st_ino
    with pytest.raises(OSError, match="not empty"):
        (mounted / "folder").rmdir()
    (mounted / "folder/moved").unlink()
    (mounted / "folder").rmdir()
    assert set(os.listdir(mounted)) == {"unsized", "link", "twin"}


def test_a_folder_of_many_entries_is_listed_whole(mounted: Path, tree: MemoryTree) -> None:
    names = {f"entry-with-a-long-name-{number}" for number in range(2000)}
    for name in names:
        tree.add(tree.root, name.encode(), stat.S_IFREG | 0o600, b"x")
    assert set(os.listdir(mounted)) == names | {"file", "unsized"}
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(mounted)}
    assert sizes["entry-with-a-long-name-1999"] == 1


def test_attributes_are_seen_and_changed(mounted: Path, tree: MemoryTree) -> None:
    os.chmod(mounted / "file", 0o600)
    os.utime(mounted / "file", ns=(1, 1_234_567_890_123_456_789))
    assert stat.S_IMODE(found(tree, b"file").mode) == 0o600
    assert found(tree, b"file").mtime == 1_234_567_890_123_456_789
    os.utime(mounted / "file", ns=(0, -1_500_000_000))
    assert found(tree, b"file").mtime == -1_500_000_000
    assert os.stat(mounted / "file").st_mtime_ns == -1_500_000_000
    about = os.statvfs(mounted)
    assert (about.f_blocks, about.f_bfree, about.f_bavail, about.f_namemax) == (1000, 400, 300, 77)


def test_extended_attributes(mounted: Path) -> None:
    os.setxattr(mounted / "file", "user.colour", b"green\0red")
    assert os.getxattr(mounted / "file", "user.colour") == b"green\0red"
    assert os.listxattr(mounted / "file") == ["user.colour"]
    os.removexattr(mounted / "file", "user.colour")
    with pytest.raises(OSError) as refused:
        os.getxattr(mounted / "file", "user.colour")
    assert refused.value.errno == errno.ENODATA


def test_a_file_without_a_size_has_what_its_open_made(mounted: Path) -> None:
    assert os.stat(mounted / "unsized").st_size == 0
    assert (mounted / "unsized").read_bytes() == b"made at open 1\n"
    assert (mounted / "unsized").read_bytes() == b"made at open 2\n"


def test_a_direct_write_comes_in_one_piece(mounted: Path, tree: MemoryTree) -> None:
    descriptor = os.open(mounted / "unsized", os.O_WRONLY)
    os.write(descriptor, b"a" * 300_000)
    os.write(descriptor, b"b")
    os.close(descriptor)
    assert tree.pieces == [b"a" * 300_000, b"b"]


def test_fsync_and_close_reach_the_tree(mounted: Path, tree: MemoryTree) -> None:
    descriptor = os.open(mounted / "file", os.O_WRONLY)
    os.fsync(descriptor)
    os.fdatasync(descriptor)
    os.close(descriptor)
    assert tree.said[-3:] == ["fsync", "fdatasync", "flush"]


def test_the_host_forgets_nodes_and_the_tree_hears_of_it(mounted: Path, tree: MemoryTree) -> None:
    node = found(tree, b"file")
    os.stat(mounted / "file")
    assert node in tree.held
    os.unlink(mounted / "file")
    for _ in range(100):
        if node not in tree.held:
            break
        time.sleep(0.02)
    assert node not in tree.held


def test_ioctl_carries_its_argument_both_ways(mounted: Path) -> None:
    argument = bytearray(b"abcd")
    with open(mounted / "file", "rb") as file:
        assert fcntl.ioctl(file, 3 << 30 | 4 << 16 | 0x6B01, argument) == 7
    assert argument == b"dcba"


def test_poll_waits_until_the_tree_says_that_there_is_more(mounted: Path, tree: MemoryTree) -> None:
    with open(mounted / "file", "rb") as file:
        poller = select.poll()
        poller.register(file, select.POLLIN)

        def wake() -> None:
            assert tree.waits.wait(10)
            tree.ready = True
            assert tree.session is not None
            tree.session.wake(tree.waiter)

        waker = threading.Thread(target=wake)
        waker.start()
        assert poller.poll(10_000) == [(file.fileno(), select.POLLIN)]
        waker.join()


READER = "import sys; open(sys.argv[1], 'rb', buffering=0).read(10)"


def test_a_read_that_waits_can_be_answered_later_or_interrupted(mounted: Path, tree: MemoryTree) -> None:
    tree.add(tree.root, b"slow", stat.S_IFREG | 0o644, b"wait")
    reader = subprocess.Popen([sys.executable, "-c", READER, str(mounted / "slow")])
    assert tree.waits.wait(20)
    assert (mounted / "file").read_bytes() == b"what it holds"  # others go on meanwhile
    waiting, session = tree.waiting, tree.session
    assert waiting is not None
    assert session is not None
    session.call_soon(lambda: waiting.answer(b"at last"))
    assert reader.wait(20) == 0
    tree.waits.clear()
    reader = subprocess.Popen([sys.executable, "-c", READER, str(mounted / "slow")])
    assert tree.waits.wait(20)
    reader.terminate()
    assert reader.wait(20) == -15


def test_what_the_host_knows_is_forgotten_on_demand(tree: MemoryTree, tmp_path: Path) -> None:
    need_fuse()
    node = found(tree, b"file")
    with served(tmp_path, tree, session=SessionOptions(entry_valid=1000, attributes_valid=1000)):
        assert os.stat(tmp_path / "file").st_size == 13
        node.content += b", and more"
        assert os.stat(tmp_path / "file").st_size == 13
        assert tree.session is not None
        tree.session.forget_content(node)
        assert os.stat(tmp_path / "file").st_size == 23
        del tree.root.names[b"file"]
        assert os.path.exists(tmp_path / "file")
        tree.session.forget_name(tree.root, b"file")
        assert not os.path.exists(tmp_path / "file")


def test_an_errno_of_the_tree_reaches_the_program(tree: MemoryTree, tmp_path: Path) -> None:
    need_fuse()

    class Broken(MemoryTree):
        def readlink(self, request: object, node: Node) -> bytes:
            raise OSError(errno.EUCLEAN, "damaged")

    broken = Broken()
    broken.add(broken.root, b"link", stat.S_IFLNK | 0o777, b"x")
    with served(tmp_path, broken), pytest.raises(OSError) as refused:
        os.readlink(tmp_path / "link")
    assert refused.value.errno == errno.EUCLEAN


def test_what_is_no_errno_is_an_input_output_error_and_told_to_the_tree(tmp_path: Path) -> None:
    need_fuse()
    told: list[BaseException] = []

    class Dying(MemoryTree):
        def readlink(self, request: object, node: Node) -> bytes:
            raise GuestError("the task was killed")

        def failed(self, request: object, error: BaseException) -> None:
            told.append(error)

    dying = Dying()
    dying.add(dying.root, b"link", stat.S_IFLNK | 0o777, b"x")
    dying.add(dying.root, b"file", stat.S_IFREG | 0o644, b"still served")
    with served(tmp_path, dying):
        with pytest.raises(OSError) as refused:
            os.readlink(tmp_path / "link")
        assert refused.value.errno == errno.EIO
        assert (tmp_path / "file").read_bytes() == b"still served"
    assert [str(error) for error in told] == ["the task was killed"]


def test_without_open_files_are_read_all_the_same(tmp_path: Path) -> None:
    need_fuse()

    class Plain(MemoryTree):
        def open(self, request: object, node: Node, flags: int) -> None:  # type: ignore[override]
            self.opens += 1
            raise OSError(errno.ENOSYS, "no open")

        def read(self, request: object, node: Node, handle: bytearray | None, offset: int, size: int) -> bytes:
            assert handle is None
            return bytes(node.content[offset : offset + size])

    plain = Plain()
    plain.add(plain.root, b"file", stat.S_IFREG | 0o644, b"content")
    with served(tmp_path, plain):
        for _ in range(3):
            assert (tmp_path / "file").read_bytes() == b"content"
    assert plain.opens == 1


def test_an_unmount_ends_the_session(tree: MemoryTree, tmp_path: Path) -> None:
    need_fuse()
    from kobox.fuse import mount

    with mount(str(tmp_path)) as mounted:
        session = Session(mounted.descriptor, tree)
        thread = threading.Thread(target=session.run, daemon=True)
        thread.start()
        assert (tmp_path / "file").read_bytes() == b"what it holds"
        mounted.unmount()
        thread.join(10)
        assert not thread.is_alive()
        assert tree.ended
        assert not os.listdir(tmp_path)


def test_what_is_open_at_the_end_is_given_back(tree: MemoryTree, tmp_path: Path) -> None:
    need_fuse()
    with served(tmp_path, tree):
        descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    assert tree.left == [found(tree, b"file").content]
    with pytest.raises(OSError) as refused:
        os.read(descriptor, 1)
    assert refused.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    with contextlib.suppress(OSError):  # of the flush that nobody serves
        os.close(descriptor)

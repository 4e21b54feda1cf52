"""``kobox mount``: images of real tools as folders of this host, and what these tools find in them afterwards."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mounting import MAKERS, blank, check, kill, kobox, made, mounted, run
from needs import lacking, need_fuse, need_program
from schemas import problems_of_command

pytestmark = pytest.mark.image

HEADERS = Path("/usr/include/linux")
"""A tree of many small files that the tests' packages bring."""


ROOTS = ["debian_root", "trixie_root"]


@pytest.fixture(params=ROOTS)
def root(request: pytest.FixtureRequest) -> Path:
    """On each kernel."""
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred files in folders, whose names differ in more than their case; and a large one."""
    place = tmp_path_factory.mktemp("tree")
    known: set[str] = set()
    for path in sorted(HEADERS.rglob("*.h"))[::3]:
        name = path.relative_to(HEADERS)
        if str(name).lower() not in known:
            known.add(str(name).lower())
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(path.read_bytes())
    (place / "large").write_bytes(os.urandom((3 << 20) + 17))
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mnt"


def contents(place: Path) -> dict[str, object]:
    """Every name below a folder: the bytes of a file, where a link leads, None for a folder."""
    found: dict[str, object] = {}
    for path in place.rglob("*"):
        name = str(path.relative_to(place))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def same_trees(one: Path, other: Path) -> bool:
    """Names, and contents byte for byte."""
    here, there = contents(one), contents(other)
    return sorted(here) == sorted(there) and all(there[name] == content for name, content in here.items())


@pytest.mark.parametrize(
    ("root", "kind"),
    [(root, kind) for root in ROOTS for kind in MAKERS if (root, kind) != ("debian_root", "ntfs3")],
    indirect=["root"],
)
def test_a_tree_copied_in_is_read_back_after_the_next_mount_and_the_image_is_clean(
    root: Path, kind: str, tree: Path, tmp_path: Path, folder: Path
) -> None:
    image = made(kind, tmp_path / "image")
    with mounted(image, folder, root) as about:
        assert (about["type"], about["read_only"]) == (kind, False)
        run("cp", "-r", tree, folder / "tree")
        (folder / "tree/large").rename(folder / "moved")
        (folder / "moved").rename(folder / "tree/large")
    check(kind, image)
    with mounted(image, folder, root, "-r") as about:
        assert about["read_only"]
        assert same_trees(tree, folder / "tree")
        with pytest.raises(OSError) as refused:
            (folder / "new").touch()
        assert refused.value.errno == errno.EROFS
    check(kind, image)


@pytest.mark.parametrize("root", [*ROOTS, "newest_root"], indirect=True)
def test_ext4_shows_what_debugfs_shows(root: Path, tmp_path: Path, folder: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below/file").write_bytes(os.urandom(200_000))
    (tree / "link").symlink_to("below/file")
    os.link(tree / "below/file", tree / "twin")
    image = blank(tmp_path / "image", 16)
    run("mkfs.ext4", "-q", "-F", "-d", tree, image)
    with mounted(image, folder, root):
        assert {entry.name for entry in folder.iterdir()} == {"below", "link", "twin", "lost+found"}
        assert (folder / "link").read_bytes() == (tree / "below/file").read_bytes()
        assert os.readlink(folder / "link") == "below/file"
        assert (folder / "twin").stat().st_ino == (folder / "below/file").stat().st_ino
        assert (folder / "twin").stat().st_nlink == 2
        (folder / "written").write_text("by a program of the host")
        os.chown(folder / "written", 123, 456)
        os.chmod(folder / "written", 0o4711)
        os.utime(folder / "written", ns=(10**18, 10**18 + 123))
        os.setxattr(folder / "written", "user.colour", b"green")
        os.mknod(folder / "pipe", stat.S_IFIFO | 0o600)
    assert run("debugfs", "-R", "cat written", image) == "by a program of the host"
    shown = run("debugfs", "-R", "stat written", image)
    assert "User:   123   Group:   456" in shown
    assert "Mode:  04711" in shown
    assert 'user.colour (5) = "green"' in shown
    assert "FIFO" in run("debugfs", "-R", "stat pipe", image)
    check("ext4", image)


def test_a_kernel_that_lacks_the_file_system_is_named(debian_root: Path, tmp_path: Path, folder: Path) -> None:
    folder.mkdir()
    image = made("ntfs3", tmp_path / "image")
    refused = kobox("mount", "--image", debian_root, image, folder)
    assert refused.returncode == 2
    assert re.fullmatch(rf"kobox mount: {image}: kernel \S+ has no file system ntfs3\n", refused.stderr)


def test_vfat_is_read_by_mtools(root: Path, tmp_path: Path, folder: Path) -> None:
    image = made("vfat", tmp_path / "image")
    content = os.urandom(300_000)
    with mounted(image, folder, root):
        (folder / "a folder with a long name").mkdir()
        (folder / "a folder with a long name/Some File.bin").write_bytes(content)
    out = tmp_path / "out"
    run("mcopy", "-i", image, "::a folder with a long name/Some File.bin", out)
    assert out.read_bytes() == content


def test_names_that_differ_in_case_are_one_where_the_file_system_says_so(
    debian_root: Path, tmp_path: Path, folder: Path
) -> None:
    image = made("vfat", tmp_path / "image")
    with mounted(image, folder, debian_root):
        assert not (folder / "name").exists()
        (folder / "Name").write_text("one file")
        assert (folder / "name").read_text() == "one file"
        (folder / "NAME").unlink()
        assert not (folder / "name").exists()
        assert not (folder / "Name").exists()


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("squashfs", ("mksquashfs", "TREE", "IMAGE", "-quiet", "-no-progress")),
        ("erofs", ("mkfs.erofs", "IMAGE", "TREE")),
    ],
)
def test_file_systems_that_are_only_read(
    root: Path, kind: str, make: tuple[str, ...], tree: Path, tmp_path: Path, folder: Path
) -> None:
    image = tmp_path / "image"
    run(*({"TREE": str(tree), "IMAGE": str(image)}.get(word, word) for word in make))
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    with mounted(image, folder, root) as about:
        assert (about["type"], about["read_only"]) == (kind, True)
        assert same_trees(tree, folder)
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def test_a_partition_is_chosen_by_number_and_the_only_one_by_itself(
    debian_root: Path, tmp_path: Path, folder: Path
) -> None:
    image = blank(tmp_path / "disk", 64)
    inner = made("vfat", tmp_path / "inner")
    table = "label: gpt\nstart=2048, size=32768\nstart=40960, size=65536\n"
    subprocess.run(["/sbin/sfdisk", "-q", image], input=table, text=True, check=True)
    with open(image, "r+b") as file:
        file.seek(40960 * 512)
        file.write(blank_vfat(inner, tmp_path))
    with mounted(image, folder, debian_root) as about:
        assert (about["device"], about["type"]) == ("/dev/vda2", "vfat")
        (folder / "file").write_text("in the second")
    with mounted(image, folder, debian_root, "--partition", "2"):
        assert (folder / "file").read_text() == "in the second"
    with mounted(image, folder, debian_root, "--offset", str(40960 * 512)) as about:
        assert about["device"] == "/dev/vda"
        assert (folder / "file").read_text() == "in the second"
    refused = kobox("mount", "--image", debian_root, "--partition", "7", image, folder)
    assert refused.returncode == 2
    assert refused.stderr == f"kobox mount: {image}: no partition 7; hint: it has 1, 2\n"


def blank_vfat(inner: Path, tmp_path: Path) -> bytes:
    """A vfat of 32 MB as bytes."""
    blank(inner, 32)
    run("mkfs.vfat", inner)
    return inner.read_bytes()


def operations(place: Path, seed: int, count: int) -> list[object]:
    """Random operations on a folder, all drawn from the seed; what each answered."""
    draw = random.Random(seed)
    names = [f"f{number}" for number in range(6)] + ["d0", "d1"]

    def some() -> Path:
        path = place / draw.choice(names)
        return path if draw.random() < 0.6 else place / draw.choice(["d0", "d1"]) / draw.choice(names)

    def write(path: Path) -> object:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | draw.choice([0, 0, os.O_TRUNC, os.O_APPEND]), 0o640)
        try:
            return os.pwrite(descriptor, draw.randbytes(draw.randrange(20_000)), draw.randrange(60_000))
        finally:
            os.close(descriptor)

    def read(path: Path) -> object:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.pread(descriptor, draw.randrange(50_000), draw.randrange(60_000))
        finally:
            os.close(descriptor)

    def map_and_write(path: Path) -> object:
        import mmap

        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return 0
            with mmap.mmap(file.fileno(), size) as mapped:
                at = draw.randrange(size)
                mapped[at : at + 100] = draw.randbytes(len(mapped[at : at + 100]))
                return size

    def punch(path: Path) -> object:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), draw.randrange(40_000), draw.randrange(1, 20_000))
            return os.fstat(file.fileno()).st_size

    def status(path: Path) -> object:
        found = os.lstat(path)
        return found.st_mode, None if stat.S_ISDIR(found.st_mode) else (found.st_size, found.st_nlink)

    actions: list[Callable[[], object]] = [
        lambda: write(some()), lambda: write(some()), lambda: write(some()), lambda: read(some()),
        lambda: read(some()), lambda: os.truncate(some(), draw.randrange(80_000)), lambda: os.unlink(some()),
        lambda: os.mkdir(some()), lambda: os.rmdir(some()), lambda: os.rename(some(), some()),
        lambda: os.link(some(), some()), lambda: os.symlink(draw.choice(names), some()), lambda: status(some()),
        lambda: os.chmod(some(), draw.choice([0o600, 0o755])), lambda: sorted(os.listdir(some())),
        lambda: map_and_write(some()), lambda: punch(some()),
    ]  # fmt: skip
    answers: list[object] = []
    for _ in range(count):
        action = draw.choice(actions)
        try:
            answers.append(action())
        except OSError as error:
            answers.append(error.errno)
    return answers


@pytest.mark.parametrize("root", [*ROOTS, "newest_root"], indirect=True)
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_random_operations_answer_as_in_a_folder_of_the_host(
    root: Path, kind: str, tmp_path: Path, folder: Path
) -> None:
    seed = int.from_bytes(hashlib.sha256(kind.encode()).digest()[:4], "little")
    twin = tmp_path / "twin"
    twin.mkdir()
    image = made(kind, tmp_path / "image")
    with mounted(image, folder, root):
        (folder / "place").mkdir()
        there, here = operations(folder / "place", seed, 400), operations(twin, seed, 400)
        for number, (one, other) in enumerate(zip(there, here, strict=True)):
            assert one == other, f"operation {number} of seed {seed}"
        assert same_trees(folder / "place", twin)
    check(kind, image)
    with mounted(image, folder, root):
        assert same_trees(folder / "place", twin)


def as_nobody(script: str) -> subprocess.CompletedProcess[str]:
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_with_default_permissions_others_may_what_modes_say(debian_root: Path, tmp_path: Path, folder: Path) -> None:
    if os.geteuid():
        lacking("this test needs root, to become another user")
    need_program("setpriv")
    image = made("ext4", tmp_path / "image")
    place = Path("/tmp") / f"kobox-test-{os.getpid()}"  # whose parents anybody may enter
    with mounted(image, place, debian_root, "-o", "default_permissions,allow_other"):
        (place / "for-all").mkdir()
        (place / "for-all").chmod(0o1777)
        (place / "shared").mkdir()
        os.chown(place / "shared", 0, 1234)
        (place / "shared").chmod(0o2777)
        assert as_nobody(f"echo mine > {place}/for-all/file && cat {place}/for-all/file").stdout == "mine\n"
        assert as_nobody(f"mkdir {place}/shared/below").returncode == 0
        assert as_nobody(f"ls {place}/lost+found").returncode != 0
        assert as_nobody(f"touch {place}/file").returncode != 0
        found = (place / "for-all/file").stat()
        assert (found.st_uid, found.st_gid) == (65534, 65534)
        assert ((place / "shared/below").stat().st_uid, (place / "shared/below").stat().st_gid) == (65534, 1234)
    place.rmdir()
    check("ext4", image)


def test_many_programs_read_and_write_at_once(debian_root: Path, tmp_path: Path, folder: Path) -> None:
    image = made("ext4", tmp_path / "image")
    contents = [os.urandom(700_000 + number) for number in range(6)]
    wrong: list[int] = []

    def work(number: int) -> None:
        path = folder / f"file{number}"
        for _ in range(3):
            path.write_bytes(contents[number])
            if path.read_bytes() != contents[number]:
                wrong.append(number)

    with mounted(image, folder, debian_root):
        workers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert not wrong
    check("ext4", image)


def test_a_folder_in_use_is_not_unmounted_and_goes_on(debian_root: Path, tmp_path: Path, folder: Path) -> None:
    image = made("ext4", tmp_path / "image")
    with mounted(image, folder, debian_root):
        with open(folder / "file", "w") as file:
            refused = kobox("umount", folder)
            assert refused.returncode == 1
            assert "is in use" in refused.stderr
            file.write("still there")
        assert (folder / "file").read_text() == "still there"


def test_an_image_is_mounted_once(debian_root: Path, tmp_path: Path, folder: Path) -> None:
    image = made("ext4", tmp_path / "image")
    (tmp_path / "other").mkdir()
    with mounted(image, folder, debian_root) as about:
        refused = kobox("mount", "--image", debian_root, image, tmp_path / "other")
        assert refused.returncode == 1
        assert f"{image} is mounted already by process {about['pid']}" in refused.stderr
        assert problems_of_command(about, "mount") == []
        listed = json.loads(kobox("mount", "--json").stdout)
        assert problems_of_command(listed, "mount") == []
        here = {"image": str(image), "folder": str(folder), "read_only": False, "pid": about["pid"]}
        assert here in listed


def in_foreground(image: Path, folder: Path, root: Path) -> subprocess.Popen[str]:
    need_fuse()
    folder.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "kobox", "mount", "-f", "--image", str(root), str(image), str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == f"{image} on {folder} type ext4\n"
    return process


def test_ctrl_c_unmounts_and_leaves_a_clean_image(debian_root: Path, tmp_path: Path, folder: Path) -> None:
    image = made("ext4", tmp_path / "image")
    process = in_foreground(image, folder, debian_root)
    (folder / "file").write_text("content")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.communicate() == ("", "")
    check("ext4", image)
    assert run("debugfs", "-R", "cat file", image) == "content"


def test_ctrl_c_leaves_programs_alone_until_it_comes_twice(debian_root: Path, tmp_path: Path, folder: Path) -> None:
    image = made("ext4", tmp_path / "image")
    process = in_foreground(image, folder, debian_root)
    assert process.stderr is not None
    descriptor = os.open(folder / "file", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"first")
    process.send_signal(signal.SIGINT)
    assert "is in use; once more" in process.stderr.readline()
    os.write(descriptor, b" and second")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, process.communicate()
    with pytest.raises(OSError) as refused:
        os.write(descriptor, b" and third")
    assert refused.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    process.communicate()
    check("ext4", image)
    assert run("debugfs", "-R", "cat file", image) == "first and second"


def test_a_damaged_image_gives_one_clear_line(root: Path, tmp_path: Path, folder: Path) -> None:
    folder.mkdir()
    image = made("ext4", tmp_path / "image")
    with open(image, "r+b") as file:
        file.seek(1024 + 4)
        file.write(b"\xff" * 40)
    refused = kobox("mount", "--image", root, image, folder)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"kobox mount: {image}: cannot be mounted as ext4: EXT4-fs (vda): ")
    assert refused.stderr.count("\n") == 1
    noise = blank(tmp_path / "noise", 4)
    refused = kobox("mount", "--image", root, noise, folder)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"kobox mount: {noise}: no file system that kobox knows; hint: -t TYPE")
    refused = kobox("mount", "--image", root, "-t", "nonsense", image, folder)
    assert refused.returncode == 2
    assert "has no file system nonsense" in refused.stderr


WRITER = """
import hashlib, os, random, sys
folder, seed = sys.argv[1], int(sys.argv[2])
draw = random.Random(seed)
number = 0
while True:
    number += 1
    content = draw.randbytes(draw.randrange(1, 60_000))
    path = f"{folder}/d{number % 5}/f{number}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, content)
    os.fsync(descriptor)
    os.close(descriptor)
    os.rename(path + ".new", path)
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    print(f"d{number % 5}/f{number}", hashlib.sha256(content).hexdigest(), flush=True)
    if number % 7 == 0:
        old = f"{folder}/d{(number - 3) % 5}/f{number - 3}"
        os.unlink(old)
        print(f"d{(number - 3) % 5}/f{number - 3}", "gone", flush=True)
"""
"""Says what must be there from now on, when fsync has said so."""


def kill_while_writing(image: Path, folder: Path, root: Path, seed: int, seconds: float) -> dict[str, str]:
    """Mount, write, kill the process without a warning; what had been promised by then."""
    folder.mkdir(exist_ok=True)
    done = kobox("mount", "--json", "--image", root, image, folder)
    assert done.returncode == 0, done.stderr
    pid = json.loads(done.stdout)["pid"]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(seed)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    time.sleep(seconds)
    kill(pid)
    said, _ = writer.communicate(timeout=60)
    assert kobox("umount", folder).returncode == 0
    promised: dict[str, str] = {}
    for line in said.splitlines():
        name, digest = line.split()
        promised[name] = digest
    return promised


RECOVERED = ("ext4", "xfs", "btrfs")


def crash_rounds(kind: str, root: Path, tmp_path: Path, folder: Path, rounds: int) -> int:
    """Kill at random moments; how many promises were kept."""
    need_fuse()
    kept = 0
    draw = random.Random(kind)
    image = made(kind, tmp_path / "image")
    for number in range(rounds):
        promised = kill_while_writing(image, folder, root, number, draw.uniform(0.1, 2.0))
        if kind == "ext4":  # xfs and btrfs are repaired by the next mount
            done = subprocess.run(["/sbin/e2fsck", "-f", "-p", image], capture_output=True, text=True, check=False)
            assert done.returncode in (0, 1), done.stdout
        with mounted(image, folder, root):
            for name, digest in promised.items():
                if digest != "gone":  # a removal was not synced by itself
                    found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
                    assert found == digest, f"round {number}: {name}"
                    kept += 1
            run("find", folder, "-mindepth", "1", "-delete")
        check(kind, image)
    return kept


@pytest.mark.parametrize("kind", RECOVERED)
def test_after_a_kill_the_image_is_recovered_and_what_was_synced_is_there(
    debian_root: Path, kind: str, tmp_path: Path, folder: Path
) -> None:
    assert crash_rounds(kind, debian_root, tmp_path, folder, 2) > 0


@pytest.mark.full
@pytest.mark.parametrize("kind", RECOVERED)
def test_after_many_kills_no_promise_was_broken(root: Path, kind: str, tmp_path: Path, folder: Path) -> None:
    assert crash_rounds(kind, root, tmp_path, folder, 30) > 30

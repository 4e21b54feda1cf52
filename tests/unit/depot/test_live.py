"""The live host as a target: which system call is made with what. The calls themselves are replaced."""

from __future__ import annotations

import fcntl
import gzip
import os
from errno import ENOSYS, EPERM
from pathlib import Path

import pytest

from kobox.depot import live
from kobox.depot.live import COMPRESSED_FILE, LiveTarget
from kobox.depot.targets import FORCE_REMOVE, IGNORE_VERMAGIC, NO_WAIT
from kobox.errors import Errno


class Calls:
    """Stands for the kernel; ``answers`` are errors by call."""

    def __init__(self) -> None:
        self.made: list[tuple[object, ...]] = []
        self.answers: dict[str, int] = {}
        self.read: list[tuple[bytes, int]] = []
        """Content and access mode of the files that were given."""

    def __call__(self, name: str, *args: object) -> int:
        self.made.append((name, *args))
        if name == "finit_module" and isinstance(args[0], int):
            mode = fcntl.fcntl(args[0], fcntl.F_GETFL) & os.O_ACCMODE
            self.read.append((os.pread(args[0], 1000, 0), mode))
        return self.answers.get(name, 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made = Calls()
    monkeypatch.setattr(live, "_call", made)
    monkeypatch.setattr(live, "_kernel_suffix", lambda: ".xz")
    return made


def test_a_plain_file_is_given_by_its_descriptor(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "m.ko").write_bytes(b"data")
    LiveTarget().insert(str(tmp_path / "m.ko"), "a=1", IGNORE_VERMAGIC)
    ((name, fd, options, flags),) = calls.made
    assert (name, options, flags) == ("finit_module", b"a=1", IGNORE_VERMAGIC)
    assert isinstance(fd, int)


def test_a_file_that_the_kernel_can_uncompress_is_given_as_it_is(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "m.ko.xz").write_bytes(b"data")
    LiveTarget().insert(str(tmp_path / "m.ko.xz"), "", 0)
    assert calls.made[0][0] == "finit_module"
    assert calls.made[0][3] == COMPRESSED_FILE


def test_another_compressed_file_is_uncompressed_first(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "m.ko.gz").write_bytes(gzip.compress(b"inside"))
    LiveTarget().insert(str(tmp_path / "m.ko.gz"), "", 0)
    assert calls.made == [("init_module", b"inside", 6, b"")]


def test_an_old_kernel_gets_the_bytes(calls: Calls, tmp_path: Path) -> None:
    calls.answers["finit_module"] = ENOSYS
    (tmp_path / "m.ko").write_bytes(b"inside")
    LiveTarget().insert(str(tmp_path / "m.ko"), "", 0)
    assert [call[0] for call in calls.made] == ["finit_module", "init_module"]
    with pytest.raises(Errno) as raised:  # which has no way to be told what to ignore
        LiveTarget().insert(str(tmp_path / "m.ko"), "", IGNORE_VERMAGIC)
    assert raised.value.number == ENOSYS


def test_a_compressed_file_that_is_forced_becomes_a_file_in_memory(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "m.ko.gz").write_bytes(gzip.compress(b"inside"))
    LiveTarget().insert(str(tmp_path / "m.ko.gz"), "a=1", IGNORE_VERMAGIC)
    ((name, _, options, flags),) = calls.made
    assert (name, options, flags) == ("finit_module", b"a=1", IGNORE_VERMAGIC)
    assert calls.read == [(b"inside", os.O_RDONLY)]


def test_a_refusal_is_an_errno(calls: Calls, tmp_path: Path) -> None:
    calls.answers = {"finit_module": EPERM, "delete_module": EPERM}
    (tmp_path / "m.ko").write_bytes(b"")
    for act in (lambda: LiveTarget().insert(str(tmp_path / "m.ko"), "", 0), lambda: LiveTarget().remove("m", 0)):
        with pytest.raises(Errno) as raised:
            act()
        assert raised.value.number == EPERM


def test_a_file_that_is_not_there_is_an_errno(calls: Calls) -> None:
    with pytest.raises(Errno, match="ENOENT"):
        LiveTarget().insert("/none.ko", "", 0)


def test_removal_passes_the_name_and_the_flags(calls: Calls) -> None:
    LiveTarget().remove("m", NO_WAIT | FORCE_REMOVE)
    assert calls.made == [("delete_module", b"m", NO_WAIT | FORCE_REMOVE)]


def test_a_command_runs_in_a_shell_with_its_environment(tmp_path: Path) -> None:
    target = LiveTarget()
    assert target.run_command(f'echo "$MODPROBE_MODULE" > {tmp_path}/out', {"MODPROBE_MODULE": "m"}) == 0
    assert (tmp_path / "out").read_text() == "m\n"
    assert target.run_command("exit 3", {}) == 3
    assert target.run_command("kill -9 $$", {}) == 128 + 9

"""The kernel's own tests, built out of tree: what is unpacked, what is left out and why."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import build_kernel_tests
import kernel_headers
import pytest
from build_kernel_tests import build, copy_source, unpack_source

from kobox.build.headers import Headers

FILES = {
    "lib/test_uuid.c": "int uuid;",
    "lib/test_hexdump.c": "int hexdump;",
    "lib/Makefile": "obj-y += much",
    "lib/notes/deep.txt": "not asked for",
    "mm/slub.c": "not asked for",
    "tools/testing/selftests/kselftest_module.h": "/* needed */",
}


class Make:
    """A ``make`` that compiles what Kbuild names, except what ``broken`` says."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken

    def __call__(self, headers: Headers, module_dir: Path, *_: object, **__: object) -> str:
        kbuild = module_dir / "lib/Kbuild"
        names = [line.split()[-1].removesuffix(".o") for line in kbuild.read_text().splitlines()]
        bad = [name for name in names if name in self.broken]
        if bad:
            stderr = "".join(f"/x/lib/{name}.c:3:1: error: too new\n" for name in bad)
            raise subprocess.CalledProcessError(2, "make", "", stderr)
        for name in names:
            (module_dir / "lib" / f"{name}.ko").write_text(name)
        return 'WARNING: modpost: "gone" [/x/lib/test_uuid.ko] undefined!\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "linux-source-6.1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "linux-source-6.1"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_kernel_tests, "TESTS", {"lib": "test_uuid test_hexdump test_new"})

    def strip(command: list[str], **_: object) -> None:
        Path(command[3]).write_bytes(Path(command[4]).read_bytes())

    monkeypatch.setattr(build_kernel_tests.subprocess, "run", strip)


def listed(work: Path) -> list[str]:
    return sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file())


def test_only_what_is_built_is_taken_from_a_tree(tree: Path, tmp_path: Path) -> None:
    copy_source(tree, tmp_path / "work")
    assert listed(tmp_path / "work") == [name for name in sorted(FILES) if "deep" not in name and "slub" not in name]


def test_an_archive_gives_the_same_as_a_tree(tree: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "source.tar.xz", "w:xz") as tar:
        for name, text in FILES.items():
            member = tarfile.TarInfo(f"linux-source-6.1/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    unpack_source(tmp_path / "source.tar.xz", tmp_path / "a")
    copy_source(tree, tmp_path / "b")
    assert listed(tmp_path / "a") == listed(tmp_path / "b")


def test_what_does_not_compile_is_left_out_with_the_compilers_reason(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_source(tree, tmp_path / "work")
    monkeypatch.setattr(kernel_headers, "make_modules", Make("test_hexdump"))
    headers = Headers("6.1.0-56-amd64", tmp_path, tmp_path / "Makefile")
    outcomes = {one.name: one for one in build(headers, tmp_path / "work", tmp_path / "out")}
    assert outcomes["test_hexdump"].reason == "too new"
    assert outcomes["test_new"].reason == "this kernel has no lib/test_new.c"
    assert outcomes["test_uuid"].path == tmp_path / "out/test_uuid.ko"
    assert outcomes["test_uuid"].unresolved == ("gone",)
    assert listed(tmp_path / "out") == ["test_uuid.ko"]

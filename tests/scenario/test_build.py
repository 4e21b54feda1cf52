"""``kobox build`` with real headers and a real compiler, as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import kobox
from headers import kernel_headers
from kobox.build import Headers
from kobox.cli import main
from kobox.image import Image
from kobox.ko import read_module
from schemas import problems_of_command

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DUO = {
    "Makefile": "obj-m += duo.o\nduo-y := main.o part.o\n",
    "main.c": """\
#include <linux/module.h>
#include "part.h"
static int __init duo_init(void) { pr_info("duo: %d\\n", part()); return 0; }
static void __exit duo_exit(void) { }
module_init(duo_init);
module_exit(duo_exit);
MODULE_LICENSE("GPL");
""",
    "part.c": '#include "part.h"\nint part(void) { return VALUE; }\n',
    "part.h": "#define VALUE 3\nint part(void);\n",
}


@pytest.fixture(scope="module")
def headers() -> Headers:
    return kernel_headers()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    shutil.copy(EXAMPLES / "hello.c", folder)
    return folder


class Build:
    """``kobox build`` on a folder, with its JSON."""

    def __init__(self, headers: Headers, capsys: pytest.CaptureFixture[str]) -> None:
        self.headers, self.capsys = headers, capsys
        self.common = ["--image", headers.release, "--headers", str(headers.directory)]

    def __call__(self, *arguments: str) -> dict[str, Any]:
        code = main(["build", *arguments, *self.common, "--json"])
        answer = json.loads(self.capsys.readouterr().out)
        assert problems_of_command(answer, "build") == []
        (record,) = answer
        assert (code == 0) == record["ok"]
        found: dict[str, Any] = record
        return found

    def text(self, *arguments: str) -> tuple[int, str, str]:
        code = main(["build", *arguments, *self.common])
        out, err = self.capsys.readouterr()
        return code, out, err


@pytest.fixture
def build(headers: Headers, capsys: pytest.CaptureFixture[str]) -> Build:
    if not (headers.directory / "Makefile").read_text().startswith("include /usr/src"):
        return Build(headers, capsys)
    found = Build(headers, capsys)
    root = str(headers.directory).partition("/usr/src/")[0] or "/"
    found.common[3] = root
    return found


def written(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_a_folder_with_one_c_file_becomes_a_module(build: Build, hello: Path) -> None:
    record = build("hello")
    (module,) = record["modules"]
    assert module == str(hello / "build" / build.headers.release / "hello.ko")
    found = read_module(module)
    assert found.name == "hello"
    assert (found.modinfo.get("vermagic") or "").startswith(f"{build.headers.release} ")
    assert sorted(path.name for path in hello.iterdir()) == ["build", "hello.c"], "nothing is written beside the source"


def test_nothing_is_done_twice_and_a_changed_source_is_compiled_alone(build: Build, tmp_path: Path) -> None:
    duo = written(tmp_path / "duo", DUO)
    first = build("duo")
    assert (first["how"], build("duo")["how"]) == ("kbuild", "nothing")
    (duo / "part.h").write_text("#define VALUE 4\nint part(void);\n")
    again = build("duo")
    assert again["how"] == "replay"
    replayed = Path(again["modules"][0]).read_bytes()
    assert main(["cache", "clean"]) == 0
    build.capsys.readouterr()
    afresh = build("duo")
    assert afresh["how"] == "kbuild"
    assert Path(afresh["modules"][0]).read_bytes() == replayed, "as kbuild makes it"


def test_a_header_that_is_newly_included_is_known_from_then_on(build: Build, tmp_path: Path) -> None:
    duo = written(tmp_path / "duo", {**DUO, "more.h": "#define MORE 1\n"})
    build("duo")
    (duo / "part.c").write_text('#include "part.h"\n#include "more.h"\nint part(void) { return MORE; }\n')
    assert build("duo")["how"] == "replay"
    before = Path(build("duo")["modules"][0]).read_bytes()
    (duo / "more.h").write_text("#define MORE 2\n")
    after = build("duo")
    assert after["how"] == "replay"
    assert Path(after["modules"][0]).read_bytes() != before


def test_a_new_undefined_symbol_is_noticed_without_make(build: Build, tmp_path: Path) -> None:
    duo = written(tmp_path / "duo", DUO)
    build("duo")
    (duo / "part.c").write_text('#include "part.h"\nint lost(void);\nint part(void) { return lost(); }\n')
    record = build("duo")
    assert not record["ok"]
    assert record["diagnostics"][0]["text"] == '"lost" [duo/duo.ko] undefined!'


@pytest.mark.parametrize("where", ["mirror.kbuild_for", "replay.read_recipe", "kbuild.run"])
def test_a_change_is_not_forgotten_by_a_build_that_is_killed(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    duo = written(tmp_path / "duo", DUO)
    before = Path(build("duo")["modules"][0]).read_bytes()
    (duo / "part.h").write_text("#define VALUE 4\nint part(void);\n")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"kobox.build.{where}", killed)
        assert main(["build", "duo", *build.common]) == 130
    build.capsys.readouterr()
    assert Path(build("duo")["modules"][0]).read_bytes() != before
    assert build("duo")["how"] == "nothing"


def test_a_changed_makefile_goes_through_kbuild_and_old_modules_go(build: Build, tmp_path: Path) -> None:
    duo = written(tmp_path / "duo", DUO)
    build("duo")
    (duo / "Makefile").write_text("obj-m += solo.o\nsolo-y := main.o part.o\n")
    record = build("duo")
    assert record["how"] == "kbuild"
    assert [path.name for path in (duo / "build" / build.headers.release).glob("*.ko")] == ["solo.ko"]


def test_a_compile_error_is_a_record_and_a_line_and_exit_1(build: Build, hello: Path) -> None:
    source = (hello / "hello.c").read_text()
    (hello / "hello.c").write_text(source.replace("return 0;", "return nothing_like_it;", 1))
    record = build("hello")
    error = record["diagnostics"][0]
    line = next(number for number, text in enumerate(source.splitlines(), 1) if "return 0;" in text)
    assert (error["level"], error["file"], error["line"]) == ("error", "hello/hello.c", line)
    assert "nothing_like_it" in error["text"]
    code, out, err = build.text("hello")
    assert code == 1
    assert f"hello/hello.c:{line}:" in err
    assert "not built" in out
    (hello / "hello.c").write_text(source)
    assert build("hello")["ok"], "and mended it builds"


def test_a_module_uses_the_symbols_of_another_build(build: Build, tmp_path: Path) -> None:
    for name, files in {"exporter": ("exporter.c", "exporter.h"), "user": ("user.c", "exporter.h")}.items():
        written(tmp_path / name, {file: (EXAMPLES / file).read_text() for file in files})
    build("exporter")
    alone = build("user")
    assert not alone["ok"]
    assert "undefined!" in alone["diagnostics"][0]["text"]
    assert "--symvers" in build.text("user")[2]
    assert build("user", "--symvers", "exporter")["ok"]


def test_results_go_where_they_are_asked_for(build: Build, hello: Path, tmp_path: Path) -> None:
    assert build("hello", "-o", "out")["modules"] == [str(tmp_path / "out" / build.headers.release / "hello.ko")]
    assert [path.name for path in hello.iterdir()] == ["hello.c"]


def test_in_place_leaves_everything_beside_the_sources(build: Build, hello: Path) -> None:
    (hello / "Kbuild").write_text("obj-m += hello.o\n")
    assert build("hello", "--in-place")["modules"] == [str(hello / "hello.ko")]


def test_debug_data_names_the_users_own_file(build: Build, hello: Path) -> None:
    module = Path(build("hello")["modules"][0])
    assert str(hello / "hello.c").encode() in module.read_bytes()
    assert b"/cache/work/" not in module.read_bytes()


def test_a_variable_reaches_make(build: Build, hello: Path) -> None:
    with open(hello / "hello.c", "a") as source:
        source.write("#ifdef STOP\n#error stopped by hand\n#endif\n")
    assert build("hello")["ok"]
    record = build("hello", "KCFLAGS=-DSTOP")
    assert record["diagnostics"][0]["text"] == "#error stopped by hand"


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["gone"], "gone: no such directory", 2),
        (["hello", "M=/x"], "M is set by kobox", 2),
        (["hello", "word"], "'word' is no NAME=VALUE for make", 2),
        (["hello", "-j", "0"], "-j 0: at least one compiler", 2),
        (["hello", "--symvers", "."], "no Module.symvers for", 2),
        (["hello", "--in-place", "-o", "x"], "--output does not go with it", 2),
        (["hello", "--cc", "no-such-cc"], "no no-such-cc on this machine", 3),
        (["empty"], "no Kbuild, Makefile or .c file in it", 2),
    ],
)
def test_wrong_usage_is_one_line(
    build: Build, hello: Path, tmp_path: Path, arguments: list[str], says: str, code: int
) -> None:
    (tmp_path / "empty").mkdir()
    found, out, err = build.text(*arguments)
    assert (found, out) == (code, "")
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_a_makefile_without_a_module_is_told(build: Build, tmp_path: Path) -> None:
    written(tmp_path / "none", {"Makefile": "obj-y += x.o\n", "x.c": "int x;\n"})
    record = build("none")
    assert "no module was built" in record["diagnostics"][-1]["text"]


@pytest.mark.full
@pytest.mark.image
def test_a_newer_distributions_kernel_is_built_for(
    trixie_image: Image,
    trixie_root: Path,
    hello: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KOBOX_DATA_DIR", str(trixie_root.parents[2]))
    assert main(["build", "hello", "--image", trixie_image.release, "--json"]) == 0, capsys.readouterr().err
    (record,) = json.loads(capsys.readouterr().out)
    module = read_module(record["modules"][0])
    assert (module.modinfo.get("vermagic") or "").startswith(f"{trixie_image.release} ")
    (hello / "hello.c").write_text((hello / "hello.c").read_text() + "/* more */\n")
    assert main(["build", "hello", "--image", trixie_image.release, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["how"] == "replay"
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(trixie_image.path.parents[1]))
    with kobox.boot(trixie_root) as kernel:
        assert kernel.insmod(record["modules"][0], my_param=5).parameters["my_param"] == "5"


def test_ctrl_c_ends_it_whole(build: Build, hello: Path, tmp_path: Path) -> None:
    for number in range(40):
        (hello / f"part{number}.c").write_text((EXAMPLES / "hello.c").read_text())
    line = [sys.executable, "-m", "kobox", "build", "hello", "-j", "1", *build.common]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    work = tmp_path / "cache/work"
    deadline = time.monotonic() + 60
    while not list(work.rglob("part1*.o")):
        assert time.monotonic() < deadline, "kbuild did not begin"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "kobox build: interrupted\n"
    assert not (hello / "build").exists()
    for file in hello.glob("part*.c"):
        file.unlink()
    assert build("hello")["ok"], "and the next one is whole"

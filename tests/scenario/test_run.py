"""``kobox run`` on the booted image, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kobox.cli import main
from paths import EXAMPLES

pytestmark = pytest.mark.image


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["run", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_module_is_loaded_shown_and_unloaded(kobox_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--image", kobox_image, "--steps", str(EXAMPLES / "hello.ko"), "my_param=7")
    assert code == 0, err
    assert "hello: my_param is 7" in out
    assert "parameters:" in out
    assert out.splitlines()[-1].startswith("hello: loaded, unloaded, nothing leaked")


def test_quiet_says_only_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--image", "bare", "-q", str(EXAMPLES / "hello.ko")) == (0, "", "")
    code, out, err = run(capsys, "--image", "bare", "-q", str(EXAMPLES / "leak.ko"))
    assert (code, err, out.count("\n")) == (1, "", 1)
    assert out.startswith("leak: loaded, unloaded, 2 leaked allocations")


def test_the_json_report_has_its_documented_fields(kobox_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--image", kobox_image, "--json", str(EXAMPLES / "hello.ko"))
    report = json.loads(out)
    assert code == 0
    assert report["module"] == "hello"
    assert report["result"] == 0
    assert report["errno_name"] is None
    assert report["oops"] is None
    assert report["leaks"] == report["stubs"] == []
    assert {"name", "ms"} <= set(report["steps"][0])
    assert {"level", "text"} <= set(report["log"][0])
    assert report["tainted"] == 12288


def test_dependencies_beside_the_module_are_loaded_first(kobox_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--image", kobox_image, str(EXAMPLES / "user.ko"))
    assert code == 0
    assert "loaded first: exporter" in out


def test_dependencies_come_from_the_images_own_tree(
    kobox_image: str, debian_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bonding = next((debian_root / "lib/modules").glob("*/kernel/drivers/net/bonding/bonding.ko"))
    code, out, _ = run(capsys, "--image", kobox_image, "--json", str(bonding), "miimon=100")
    report = json.loads(out)
    assert code == 0
    assert report["dependencies"] == ["tls"]
    assert report["result"] == 0
    assert report["tainted"] == 0, "signed by the key that the image trusts"


def test_a_crash_is_reported_with_its_place(kobox_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--image", kobox_image, "--json", str(EXAMPLES / "walk_oops.ko"))
    report = json.loads(out)
    assert code == 1
    assert "read_on" in json.dumps(report["oops"])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda data: data[:40], "header"),
        (lambda data: b"\x7fELG" + data[4:], ""),
        (lambda data: data[:18] + b"\x28\x00" + data[20:], "rchitecture"),
        (lambda data: data[: len(data) // 2], ""),
        (lambda data: b"", ""),
    ],
    ids=["cut in the header", "no magic", "another machine", "cut in half", "empty"],
)
def test_bad_input_is_one_clear_line_and_exit_1(
    kobox_image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: object, says: str
) -> None:
    broken = tmp_path / "broken.ko"
    broken.write_bytes(make((EXAMPLES / "hello.ko").read_bytes()))  # type: ignore[operator]
    code, out, err = run(capsys, "--image", kobox_image, str(broken))
    assert code == 1
    said = err or out
    assert says in said
    assert "Traceback" not in said
    if not out:
        assert len(err.strip().splitlines()) == 1


def test_a_missing_file_is_one_line(kobox_image: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--image", kobox_image, "/nonexistent/x.ko")
    assert code == 1
    assert err.strip().splitlines() == ["kobox run: /nonexistent/x.ko: No such file or directory"]


def test_an_unknown_symbol_is_named(kobox_image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from builders import KoBuilder

    vermagic = next(
        value.split(b"\0")[0].decode() for value in (EXAMPLES / "hello.ko").read_bytes().split(b"vermagic=")[1:]
    )
    builder = KoBuilder("lost").module(license="GPL", vermagic=vermagic)
    path = tmp_path / "lost.ko"
    builder.undefined("no_such_function_1").undefined("no_such_function_2").write(path)
    code, out, _ = run(capsys, "--image", kobox_image, str(path))
    assert code == 1
    assert "no_such_function_1" in out
    assert "no_such_function_2" in out

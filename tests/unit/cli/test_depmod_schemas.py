"""The JSON answers of depmod and modinfo are what the published schema says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import KoBuilder
from kobox.cli import main
from schemas import problems


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(tmp_path / "cache"))
    tree = tmp_path / "lib/modules/6.1.0"
    tree.mkdir(parents=True)
    (tree / "modules.builtin").write_text("kernel/bi.ko\n")
    (tree / "modules.builtin.modinfo").write_bytes(b"bi.license=GPL\0")
    builder = KoBuilder("foo").text().param("p", description="x").modinfo(("alias", "a"), ("alias", "b"), license="GPL")
    builder.signature(b"value", id_type=1, sig_len=5).write(tree / "foo.ko")
    assert main(["depmod", "-b", str(tmp_path), "6.1.0"]) == 0
    return tmp_path


def test_depmods_record_is_as_published(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["depmod", "--json", "--root", str(root), "6.1.0"]) == 0
    assert problems(json.loads(capsys.readouterr().out), "depmod") == []


def test_modinfos_records_are_as_published(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["modinfo", "--json", "-b", str(root), "-k", "6.1.0", "foo", "bi"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [problems(record, "module") for record in records] == [[], []]
    assert main(["modinfo", "--json", "-F", "alias", "-b", str(root), "-k", "6.1.0", "foo"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert problems(record, "one_field") == []
    assert record["alias"] == ["a", "b"]


def test_the_only_release_of_a_system_need_not_be_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["depmod", "--json", "--root", str(root)]) == 0
    assert json.loads(capsys.readouterr().out)["release"] == "6.1.0"
    assert main(["modinfo", "--root", str(root), "-F", "alias", "foo"]) == 0
    assert main(["modinfo", "--root", str(root), "-F", "alias", "--all"]) == 0
    assert capsys.readouterr().out == "a\nb\na\nb\n"
    (root / "lib/modules/6.2.0").mkdir()
    assert main(["modinfo", "--root", str(root), "-F", "alias", "foo"]) == 2
    assert "6.1.0, 6.2.0; hint: choose one with -k" in capsys.readouterr().err
    assert main(["modinfo", "--root", str(root), "-F", "alias", str(root / "lib/modules/6.1.0/foo.ko")]) == 0
    assert main(["modinfo", "-b", str(root), "foo"]) == 1


def test_all_modules_of_a_tree_without_an_index_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["modinfo", "-b", str(tmp_path), "-k", "6.1.0", "--all"]) == 1
    directory = f"{tmp_path}/lib/modules/6.1.0"
    assert capsys.readouterr().err == f"modinfo: ERROR: {directory} has no modules.dep\n"

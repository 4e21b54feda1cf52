"""A kernel's packages leave the index of its modules to depmod: commands on a kernel find modules all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kobox.cli import main
from kobox.cli.complete import complete

pytestmark = pytest.mark.image


@pytest.fixture
def unindexed(debian_root: Path, tmp_path: Path) -> Path:
    """The image's root as its package leaves it."""
    root = tmp_path / "root"
    (root / "lib/modules").mkdir(parents=True)
    (root / "boot").symlink_to(debian_root / "boot")
    (modules,) = (debian_root / "lib/modules").iterdir()
    own = root / "lib/modules" / modules.name
    own.mkdir()
    for name in ("kernel", "modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (own / name).symlink_to(modules / name)
    return root


def test_modprobe_and_modinfo_find_modules_of_a_tree_without_an_index(
    unindexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(["boot", "--image", str(unindexed), "--name", "plain"]) == 0
    try:
        assert main(["modprobe", "bonding"]) == 0
        capsys.readouterr()
        assert main(["lsmod", "--json"]) == 0
        assert {module["name"] for module in json.loads(capsys.readouterr().out)} == {"bonding", "tls"}
        assert main(["modinfo", "-F", "depends", "bonding"]) == 0
        assert capsys.readouterr().out == "tls\n"
    finally:
        main(["halt", "--all"])
    assert not list(unindexed.glob("lib/modules/*/modules.dep*"))


def test_a_shell_finds_them_too_and_leaves_the_tree_alone(unindexed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = "modprobe bonding; lsmod | wc -l; modinfo -F depends bonding"
    assert main(["shell", "--image", str(unindexed), "-c", script]) == 0
    assert capsys.readouterr().out == "3\ntls\n"
    assert not list(unindexed.glob("lib/modules/*/modules.dep*"))


def test_completion_knows_them_too(unindexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(["boot", "--image", str(unindexed), "--name", "plain"]) == 0
    try:
        answer = complete(("modprobe", "dumm"))
    finally:
        main(["halt", "--all"])
    assert [word for word, _ in answer.words] == ["dummy", "dummy_hcd"]

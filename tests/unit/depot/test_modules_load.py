"""What is loaded at boot because a list says so."""

from __future__ import annotations

from pathlib import Path

from depot_roots import DepotRoot
from kobox.depot.facts import Place
from kobox.depot.modules_load import boot_modules


def test_lists_are_read_in_order_and_the_command_line_comes_first(tmp_path: Path) -> None:
    root = DepotRoot(tmp_path).conf("etc/modules-load.d/b.conf", "# comment\nfoo\n; other\n\nbar\n")
    root.conf("lib/modules-load.d/a.conf", "early\n").conf("lib/modules-load.d/b.conf", "hidden\n")
    root.conf("etc/modules", "old-style\n").write()
    found = boot_modules(str(tmp_path), "quiet modules_load=x,y rd.modules-load=z")
    assert [entry.name for entry in found] == ["x", "y", "z", "early", "foo", "bar", "old-style"]
    assert found[4].place == Place(f"{tmp_path}/etc/modules-load.d/b.conf", 2)


def test_a_line_is_a_name_and_only_the_old_list_has_options(tmp_path: Path) -> None:
    root = DepotRoot(tmp_path).conf("etc/modules-load.d/a.conf", "  loop max_loop=8 \n")
    root.conf("etc/modules", "loop max_loop=8\n").write()
    assert [entry.name for entry in boot_modules(str(tmp_path))] == ["loop max_loop=8", "loop"]


def test_the_old_list_is_read_once_when_another_leads_to_it(tmp_path: Path) -> None:
    DepotRoot(tmp_path).conf("etc/modules", "foo\n").conf("etc/modules-load.d/z.conf", "bar\n").write()
    (tmp_path / "etc/modules-load.d/modules.conf").symlink_to("../modules")
    assert [entry.name for entry in boot_modules(str(tmp_path))] == ["foo", "bar"]


def test_a_root_without_lists_loads_nothing(tmp_path: Path) -> None:
    assert boot_modules(str(tmp_path)) == []

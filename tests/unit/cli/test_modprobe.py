"""kobox modprobe: options, texts and exit codes as scripts know them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from depot_roots import RELEASE, DepotRoot
from kobox.cli import insmod, lsmod, main, modprobe, rmmod
from kobox.depot.targets import Loaded
from kobox.errors import NotModelled, UsageError

Captured = pytest.CaptureFixture[str]


class Kernel:
    """A target that notes what is done to it."""

    def __init__(self, **loaded: Loaded) -> None:
        self.modules = loaded
        self.done: list[tuple[str, ...]] = []
        self.options: str | None = None

    def loaded(self) -> Mapping[str, Loaded]:
        return self.modules

    def insert(self, path: str, options: str, flags: int) -> None:
        self.done.append(("insert", Path(path).name, options))

    def remove(self, name: str, flags: int) -> None:
        self.done.append(("remove", name))

    def run_command(self, command: str, environment: Mapping[str, str]) -> int:
        self.done.append(("command", command))
        self.options = os.environ.get("MODPROBE_OPTIONS")
        return 0


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DepotRoot:
    monkeypatch.delenv("MODPROBE_OPTIONS", raising=False)
    made = DepotRoot(tmp_path).module("kernel/foo.ko", needs=["kernel/bar.ko"]).module("kernel/bar.ko")
    return made.alias("fs-foo", "foo").builtin("kernel/bi.ko").conf("etc/modprobe.d/x.conf", "options foo a=1\n")


def run(root: DepotRoot, *arguments: str, target: Kernel | None = None) -> int:
    root.write()
    return modprobe.main(["--root", str(root.path), "-S", RELEASE, *arguments], target=target)


def test_show_depends_lists_the_steps_of_a_load(root: DepotRoot, capsys: Captured) -> None:
    assert run(root, "--show-depends", "foo", "b=two words") == 0
    tree = f"{root.path}/lib/modules/{RELEASE}"
    assert capsys.readouterr().out == f'insmod {tree}/kernel/bar.ko \ninsmod {tree}/kernel/foo.ko a=1 b="two words"\n'


def test_an_alias_is_resolved(root: DepotRoot, capsys: Captured) -> None:
    assert run(root, "-R", "fs-foo") == 0
    assert capsys.readouterr().out == "foo\n"


def test_an_unknown_module_is_fatal(root: DepotRoot, capsys: Captured) -> None:
    assert run(root, "-n", "nope") == 1
    said = f"modprobe: FATAL: Module nope not found in directory {root.path}/lib/modules/{RELEASE}\n"
    assert capsys.readouterr().err == said


def test_with_all_an_unknown_module_is_a_warning_and_the_rest_goes_on(root: DepotRoot, capsys: Captured) -> None:
    assert run(root, "-a", "-D", "nope", "bar") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("modprobe: WARNING: Module nope not found")
    assert captured.out.endswith("kernel/bar.ko \n")


def test_quiet_says_nothing_but_fails(root: DepotRoot, capsys: Captured) -> None:
    assert run(root, "-q", "-n", "nope") == 1
    assert capsys.readouterr().err == ""


def test_a_built_in_module_is_loaded_already(root: DepotRoot, capsys: Captured) -> None:
    kernel = Kernel()
    assert run(root, "bi", target=kernel) == 0
    assert kernel.done == []
    assert run(root, "--first-time", "bi", target=kernel) == 1
    assert "could not insert 'bi': Module already in kernel" in capsys.readouterr().err


def test_a_plan_is_executed_on_a_target(root: DepotRoot) -> None:
    kernel = Kernel()
    assert run(root, "foo", "b=2", target=kernel) == 0
    assert kernel.done == [("insert", "bar.ko", ""), ("insert", "foo.ko", "a=1 b=2")]


def test_a_dry_run_does_nothing_to_the_target(root: DepotRoot) -> None:
    kernel = Kernel()
    assert run(root, "-n", "foo", target=kernel) == 0
    assert kernel.done == []


def test_removal_is_executed_on_a_target(root: DepotRoot) -> None:
    kernel = Kernel(foo=Loaded("foo", "live", 0, 1, ()), bar=Loaded("bar", "live", 0, 1, ("foo",)))
    assert run(root, "-r", "foo", target=kernel) == 0
    assert kernel.done == [("remove", "foo"), ("remove", "bar")]


def test_a_root_without_a_kernel_can_only_be_asked(root: DepotRoot) -> None:
    with pytest.raises(NotModelled, match="has no kernel to change"):
        run(root, "foo")


def test_without_root_or_live_there_is_one_line_and_exit_3(capsys: Captured) -> None:
    assert main(["modprobe", "foo"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("kobox modprobe: no kobox kernel is running")
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", [["insmod", "x.ko"], ["rmmod", "x"], ["lsmod"]])
def test_the_other_tools_say_so_too(command: list[str], capsys: Captured) -> None:
    assert main(command) == 3
    assert "no kobox kernel is running" in capsys.readouterr().err


def test_a_link_named_modprobe_is_modprobe(root: DepotRoot, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    root.write()
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/modprobe", "--root", str(root.path), "-R", "fs-foo"])
    assert main() == 0
    assert capsys.readouterr().out == "foo\n"


def test_the_configuration_is_shown_in_kmods_order(root: DepotRoot, capsys: Captured) -> None:
    text = "softdep a post: b\nalias x y\nblacklist z\nremove r c\ninstall i c\n"
    assert run(root.conf("etc/modprobe.d/y.conf", text).cmdline("m.p=1"), "-c") == 0
    head = capsys.readouterr().out.split("\n# End of configuration files. Dumping indexes now:\n")[0]
    assert head.splitlines() == [
        "blacklist z",
        "install i c",
        "remove r c",
        "alias x y",
        "options foo a=1",
        "options m p=1",
        "softdep a post: b",
    ]


def test_the_configuration_as_json_names_file_and_line(root: DepotRoot, capsys: Captured) -> None:
    assert run(root, "-c", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    file = f"{root.path}/etc/modprobe.d/x.conf"
    assert shown["options"] == [{"module": "foo", "options": "a=1", "file": file, "line": 1}]


def test_a_plan_as_json_has_its_reasons(root: DepotRoot, capsys: Captured) -> None:
    assert run(root, "--json", "foo") == 0
    (plan,) = json.loads(capsys.readouterr().out)
    steps = plan["modules"][0]["steps"]
    assert [(step["action"], step["module"]) for step in steps] == [("insert", "bar"), ("insert", "foo")]
    assert steps[1]["reasons"][1]["place"]["line"] == 1


def test_options_from_the_environment_come_first(
    root: DepotRoot, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODPROBE_OPTIONS", "-D 'bar' ")
    assert run(root, "x=1") == 0
    assert capsys.readouterr().out.endswith("kernel/bar.ko x=1\n")


def test_configuration_files_given_are_passed_on_to_install_commands(
    root: DepotRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only.conf").write_text("install foo true\n")
    monkeypatch.setenv("MODPROBE_OPTIONS", "-v")
    kernel = Kernel()
    assert run(root, "-C", str(tmp_path / "only.conf"), "foo", target=kernel) == 0
    assert ("command", "true") in kernel.done
    assert kernel.options == f"-v -v -C {tmp_path}/only.conf"
    assert os.environ["MODPROBE_OPTIONS"] == "-v"


def test_the_only_release_of_a_root_need_not_be_named(root: DepotRoot, capsys: Captured) -> None:
    root.write()
    assert modprobe.main(["--root", str(root.path), "-R", "foo"]) == 0
    (root.path / "lib/modules/6.2.0").mkdir()
    with pytest.raises(UsageError, match="several releases"):
        modprobe.main(["--root", str(root.path), "-R", "foo"])


def test_a_root_that_is_no_directory_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(UsageError, match="no such directory"):
            modprobe.main(["--root", str(wrong), "-R", "x"])


def test_bad_lines_are_complained_about_and_passed_over(root: DepotRoot, capsys: Captured) -> None:
    assert run(root.conf("etc/modprobe.d/y.conf", "nonsense\n"), "-R", "foo") == 0
    assert "y.conf line 1: ignoring bad line starting with 'nonsense'" in capsys.readouterr().err


def test_names_that_are_not_utf8_pass_through(root: DepotRoot, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    run(root.conf("etc/modprobe.d/y.conf", b"blacklist caf\xe9\n"), "-c")
    assert capfdbinary.readouterr().out.startswith(b"blacklist caf\xe9\n")


def test_missing_operands_are_named(root: DepotRoot, capsys: Captured) -> None:
    assert run(root) == 1
    assert capsys.readouterr().err == "modprobe: ERROR: missing parameters. See -h.\n"


def test_a_wrong_option_has_getopts_words(root: DepotRoot, capsys: Captured) -> None:
    assert run(root, "--bogus") == 1
    assert capsys.readouterr().err == "modprobe: unrecognized option '--bogus'\n"


def test_insmod_gives_file_and_parameters_to_the_target(tmp_path: Path) -> None:
    kernel = Kernel()
    (tmp_path / "m.ko").touch()
    assert insmod.main([str(tmp_path / "m.ko"), "a=1", "b=2"], target=kernel) == 0
    assert kernel.done == [("insert", "m.ko", "a=1 b=2")]


def test_insmod_of_a_missing_file_says_so(capsys: Captured) -> None:
    assert insmod.main(["none.ko"], target=Kernel()) == 1
    said = "insmod: ERROR: could not load module none.ko: No such file or directory\n"
    assert capsys.readouterr().err == said


def test_insmod_does_not_read_standard_input(capsys: Captured) -> None:
    assert insmod.main(["-"], target=Kernel()) == 1
    assert "does not support loading from stdin" in capsys.readouterr().err


def test_rmmod_refuses_what_is_in_use_and_goes_on(capsys: Captured) -> None:
    kernel = Kernel(
        held=Loaded("held", "live", 1, 1, ("by",)),
        busy=Loaded("busy", "live", 2, 1, ()),
        free=Loaded("free", "live", 0, 1, ()),
    )
    assert rmmod.main(["held", "busy", "none", "free"], target=kernel) == 1
    assert capsys.readouterr().err.splitlines() == [
        "rmmod: ERROR: Module held is in use by: by",
        "rmmod: ERROR: Module busy is in use",
        "rmmod: ERROR: Module none is not currently loaded",
    ]
    assert kernel.done == [("remove", "free")]


def test_lsmod_has_kmods_columns(capsys: Captured) -> None:
    kernel = Kernel(foo=Loaded("foo", "live", 2, 16384, ("bar", "baz")), x=Loaded("x", "live", 0, 4096, ()))
    assert lsmod.main([], target=kernel) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Module                  Size  Used by",
        "foo                    16384  2 bar,baz",
        "x                       4096  0",
    ]


def test_lsmod_reads_a_copy_of_a_machine(tmp_path: Path, capsys: Captured) -> None:
    listed = "foo 16384 1 bar, Live 0x0\nbar 4096 0 [permanent], Loading 0x0 (OE)\n"
    DepotRoot(tmp_path).conf("proc/modules", listed).write()
    assert lsmod.main(["--root", str(tmp_path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown[0] == {"name": "foo", "size": 16384, "refcount": 1, "holders": ["bar"], "state": "live"}
    assert shown[1]["state"] == "coming"

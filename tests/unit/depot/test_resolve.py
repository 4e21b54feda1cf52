"""Plans: what loading or removing a name would do, by kmod's rules, with reasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from depot_roots import RELEASE, DepotRoot
from kobox.depot.config import load_config, search_dirs
from kobox.depot.plan import Insert, InsertPlan, Nothing, RunCommand, show_depends
from kobox.depot.resolve import Resolver
from kobox.depot.tree import ModuleTree


@pytest.fixture
def root(tmp_path: Path) -> DepotRoot:
    """foo needs bar and baz; qux stands alone; bi is built in."""
    made = DepotRoot(tmp_path).module("kernel/foo.ko", needs=["kernel/bar.ko", "kernel/baz.ko"])
    made.module("kernel/bar.ko", needs=["kernel/baz.ko"]).module("kernel/baz.ko").module("kernel/qux.ko")
    return made.alias("fs-foo", "foo").alias("pci:v*d1", "foo").alias("pci:v1d*", "qux").builtin("kernel/bi.ko")


def resolver(root: DepotRoot, cmdline: str | None = None) -> Resolver:
    root.write()
    tree = ModuleTree(str(root.path), RELEASE)
    return Resolver(load_config(search_dirs(str(root.path)), tree=tree.directory, cmdline=cmdline), tree)


def configured(root: DepotRoot, text: str) -> Resolver:
    return resolver(root.conf("etc/modprobe.d/x.conf", text))


def inserted(plan: InsertPlan) -> list[str]:
    return [step.module for probe in plan.probes for step in probe.steps]


def test_dependencies_come_first_furthest_first(root: DepotRoot) -> None:
    assert inserted(resolver(root).insert("foo")) == ["baz", "bar", "foo"]


def test_a_step_says_why_it_is_there(root: DepotRoot) -> None:
    plan = configured(root, "options bar x=1\n").insert("fs-foo")
    bar = plan.probes[0].steps[1]
    tree = f"{root.path}/lib/modules/{RELEASE}"
    assert [str(reason) for reason in bar.reasons] == [
        f"dependency of foo ({tree}/modules.dep)",
        f"options bar x=1 ({root.path}/etc/modprobe.d/x.conf:1)",
    ]
    assert str(plan.probes[0].found) == f"alias fs_foo ({tree}/modules.alias)"


def test_an_unknown_name_has_no_probes(root: DepotRoot) -> None:
    assert resolver(root).insert("nothing").probes == ()
    assert resolver(root).insert("a]b").probes == ()


def test_all_modules_of_an_alias_are_probed_in_load_order(root: DepotRoot) -> None:
    assert [probe.module for probe in resolver(root).insert("pci:v1d1").probes] == ["foo", "qux"]


def test_a_configured_alias_comes_before_a_module_of_that_name(root: DepotRoot) -> None:
    assert inserted(configured(root, "alias foo qux\n").insert("foo")) == ["qux"]


def test_options_of_the_alias_and_of_the_module_add_up_and_the_callers_come_last(root: DepotRoot) -> None:
    made = configured(root, "alias al-x qux\noptions qux a=1\noptions al-x b=2\noptions qux c=3\n")
    step = made.insert("al-x", "d=4").probes[0].steps[0]
    assert isinstance(step, Insert)
    assert step.options == "a=1 b=2 c=3 d=4"


def test_a_blacklist_stops_an_alias_but_not_a_name_or_a_dependency(root: DepotRoot) -> None:
    made = configured(root, "blacklist foo\nblacklist bar\n")
    assert made.insert("fs-foo").probes[0].refused is not None
    assert inserted(made.insert("fs-foo")) == []
    assert inserted(made.insert("foo")) == ["baz", "bar", "foo"]
    assert made.insert("foo", use_blacklist=True).probes[0].refused is not None


def test_an_install_command_replaces_the_insertion(root: DepotRoot) -> None:
    step = configured(root, "install ba* /bin/false $CMDLINE_OPTS\n").insert("baz", "x=1").probes[0].steps[0]
    assert isinstance(step, RunCommand)
    assert step.expanded() == "/bin/false x=1"


def test_an_install_command_of_a_module_with_a_softdep_is_not_run(root: DepotRoot) -> None:
    plan = configured(root, "install qux /bin/false\nsoftdep qux pre: baz\n").insert("qux")
    assert [type(step) for step in plan.probes[0].steps] == [Insert, Insert]
    assert "a soft dependency takes precedence" in str(plan.probes[0].steps[1].reasons[-1])


def test_a_softdep_on_what_does_not_exist_leaves_the_install_command_in_force(root: DepotRoot) -> None:
    plan = configured(root, "install qux /bin/false\nsoftdep qux pre: none-such\n").insert("qux")
    assert [type(step) for step in plan.probes[0].steps] == [RunCommand]


def test_ignoring_commands_also_passes_over_the_softdeps_of_the_module_itself(root: DepotRoot) -> None:
    made = configured(root, "install foo /bin/false\nsoftdep foo pre: qux\ninstall bar /bin/true\n")
    plan = made.insert("foo", ignore_commands=True)
    assert [(type(step), step.module) for step in plan.probes[0].steps] == [
        (Insert, "baz"),
        (RunCommand, "bar"),
        (Insert, "foo"),
    ]


def test_softdeps_surround_a_module_and_only_the_first_line_counts(root: DepotRoot) -> None:
    made = configured(root, "softdep baz pre: qux post: bi\nsoftdep baz pre: foo\n")
    plan = made.insert("baz")
    assert inserted(plan) == ["qux", "baz", "bi"]
    assert [step.required for step in plan.probes[0].steps] == [False, True, False]


def test_a_loop_of_softdeps_is_cut(root: DepotRoot) -> None:
    assert inserted(configured(root, "softdep baz pre: qux\nsoftdep qux pre: baz\n").insert("baz")) == ["qux", "baz"]


def test_a_built_in_module_is_nothing_to_insert(root: DepotRoot) -> None:
    plan = resolver(root).insert("bi")
    assert [type(step) for step in plan.probes[0].steps] == [Nothing]
    assert list(show_depends(plan)) == ["builtin bi"]


def test_an_alias_to_nothing_prints_nothing(root: DepotRoot) -> None:
    plan = configured(root, "alias foo off\n").insert("foo")
    assert [type(step) for step in plan.probes[0].steps] == [Nothing]
    assert list(show_depends(plan)) == []


def test_a_name_that_only_a_command_knows_is_found(root: DepotRoot) -> None:
    plan = configured(root, "install virtual /bin/true\n").insert("virtual")
    assert list(show_depends(plan)) == ["install /bin/true "]


def test_a_missing_dependency_file_drops_all_dependencies_and_is_complained_about(root: DepotRoot) -> None:
    made = resolver(root)
    (root.tree / "kernel/baz.ko").unlink()
    plan = made.insert("foo")
    assert inserted(plan) == ["foo"]
    assert "kernel/baz.ko error=No such file" in plan.complaints[0].text


def test_a_path_is_inserted_as_a_file_with_its_names_dependencies(root: DepotRoot, tmp_path: Path) -> None:
    made = resolver(root)
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere/foo.ko"
    file.touch()
    step = made.insert(str(file)).probes[0].steps[-1]
    assert isinstance(step, Insert)
    assert step.path == str(file)
    assert made.insert("/none/such.ko").probes == ()


def test_options_on_the_command_line_come_after_the_files(root: DepotRoot) -> None:
    made = resolver(root.conf("etc/modprobe.d/x.conf", "options qux a=1\n"), cmdline="qux.b=2")
    step = made.insert("qux").probes[0].steps[0]
    assert isinstance(step, Insert)
    assert step.options == "a=1 b=2 "


def test_removal_takes_post_softdeps_first_and_lists_what_may_become_unused(root: DepotRoot) -> None:
    removal = configured(root, "softdep foo pre: qux post: bi\nremove bar /bin/x\n").remove("foo").removals[0]
    assert [other.module for other in removal.post] == ["bi"]
    assert [other.module for other in removal.pre] == ["qux"]
    assert removal.dependencies == ("baz", "bar")


def test_a_remove_command_replaces_the_removal(root: DepotRoot) -> None:
    assert configured(root, "remove ba? /bin/x y\n").remove("bar").removals[0].command == "/bin/x y"


def test_a_loop_of_softdeps_in_a_removal_is_marked_and_cut(root: DepotRoot) -> None:
    removal = configured(root, "softdep qux post: baz\nsoftdep baz post: qux\n").remove("qux").removals[0]
    assert removal.post[0].post[0].loop


def test_a_chain_of_ten_thousand_softdeps_is_no_problem(tmp_path: Path) -> None:
    made = DepotRoot(tmp_path)
    for number in range(10_000):
        made.builtin(f"kernel/m{number}.ko")
    text = "".join(f"softdep m{number} pre: m{number + 1}\n" for number in range(9_999))
    assert len(inserted(resolver(made.module("kernel/x.ko").softdep(text)).insert("m9000"))) == 1000


def test_softdeps_that_all_name_each_other_are_cut_when_removing(tmp_path: Path) -> None:
    made = DepotRoot(tmp_path)
    names = [f"m{number}" for number in range(12)]
    for name in names:
        made.module(f"kernel/{name}.ko")
    text = "".join(f"softdep {name} pre: {' '.join(names)} post: {' '.join(names)}\n" for name in names)
    assert len(resolver(made.softdep(text)).remove("m0").removals) == 1

"""Walking plans on a target: what is skipped, what is an error, what a dry run does."""

from __future__ import annotations

from collections.abc import Mapping
from errno import EBUSY, EEXIST, EINVAL, ENOENT, ENOEXEC
from pathlib import Path

import pytest

from depot_roots import DepotRoot
from kobox.depot.facts import Complaint
from kobox.depot.plan import Insert, InsertPlan, Nothing, Probe, Reason, Removal, RemovePlan, RunCommand
from kobox.depot.targets import How, Loaded, RootTarget, SysModules, execute, insert, remove
from kobox.errors import Errno, NotModelled

WHY = Reason("asked for")


class FakeKernel:
    """Notes every call; fails where told."""

    def __init__(self, loaded: dict[str, Loaded] | None = None, failures: dict[str, int] | None = None) -> None:
        self.modules = loaded or {}
        self.failures = failures or {}
        self.calls: list[tuple[str, ...]] = []

    def loaded(self) -> Mapping[str, Loaded]:
        return self.modules

    def insert(self, path: str, options: str, flags: int) -> None:
        self.calls.append(("insert", path, options, str(flags)))
        if path in self.failures:
            raise Errno(self.failures[path])
        self.modules[path] = live(path)

    def remove(self, name: str, flags: int) -> None:
        self.calls.append(("remove", name))
        if name in self.failures:
            raise Errno(self.failures[name])
        gone = self.modules.pop(name)
        for other, module in list(self.modules.items()):
            if gone.name in module.holders:
                left = tuple(holder for holder in module.holders if holder != gone.name)
                self.modules[other] = module._replace(holders=left, refcount=len(left))

    def run_command(self, command: str, environment: Mapping[str, str]) -> int:
        self.calls.append(("command", command, environment["MODPROBE_MODULE"]))
        return self.failures.get(command, 0)


def live(name: str, *holders: str) -> Loaded:
    return Loaded(name, "live", len(holders), 4096, holders)


def step(name: str, required: bool = True) -> Insert:
    return Insert(name, name, "o=1", required, False, (WHY,))


def plan_of(*steps: Insert | RunCommand | Nothing, builtin: bool = False) -> InsertPlan:
    return InsertPlan("x", "/lib", (Probe(steps[-1].module, None, builtin, WHY, None, steps),), ())


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def how(self, **changes: object) -> How:
        return How(show=None, say=lambda level, text: self.lines.append(f"{level}: {text}"))._replace(**changes)


@pytest.fixture
def said() -> Said:
    return Said()


def test_steps_are_inserted_in_order_with_their_options(said: Said) -> None:
    kernel = FakeKernel()
    assert insert(plan_of(step("a"), step("b")), kernel, said.how(flags=3)) == 0
    assert kernel.calls == [("insert", "a", "o=1", "3"), ("insert", "b", "o=1", "3")]


def test_what_is_loaded_is_skipped(said: Said) -> None:
    kernel = FakeKernel({"a": live("a")})
    assert insert(plan_of(step("a"), step("b")), kernel, said.how()) == 0
    assert [call[1] for call in kernel.calls] == ["b"]


def test_a_module_that_is_still_coming_is_not_loaded_yet(said: Said) -> None:
    kernel = FakeKernel({"a": live("a")._replace(state="coming")})
    insert(plan_of(step("a")), kernel, said.how())
    assert [call[1] for call in kernel.calls] == ["a"]


def test_first_time_makes_a_loaded_module_an_error(said: Said) -> None:
    kernel = FakeKernel({"b": live("b")})
    assert insert(plan_of(step("a"), step("b")), kernel, said.how(first_time=True)) == -EEXIST
    assert said.lines == ["ERROR: could not insert 'b': Module already in kernel"]


def test_a_failing_dependency_ends_the_load(said: Said) -> None:
    kernel = FakeKernel(failures={"a": ENOEXEC})
    assert insert(plan_of(step("a"), step("b")), kernel, said.how()) == -ENOEXEC
    assert said.lines == ["ERROR: could not insert 'b': Exec format error"]
    assert len(kernel.calls) == 1


def test_a_failing_soft_dependency_does_not(said: Said) -> None:
    kernel = FakeKernel(failures={"a": ENOEXEC})
    assert insert(plan_of(step("a", required=False), step("b")), kernel, said.how()) == 0
    assert len(kernel.calls) == 2


def test_an_install_command_runs_with_the_modules_name_and_its_options(said: Said) -> None:
    kernel = FakeKernel()
    insert(plan_of(RunCommand("m", "run $CMDLINE_OPTS", "a=1", True, False, (WHY,))), kernel, said.how())
    assert kernel.calls == [("command", "run a=1", "m")]


def test_a_failing_install_command_is_an_error(said: Said) -> None:
    kernel = FakeKernel(failures={"/bin/false": 1})
    assert insert(plan_of(RunCommand("m", "/bin/false", "", True, False, (WHY,))), kernel, said.how()) == -EINVAL
    assert "retcode 1" in said.lines[0]


def test_a_name_without_a_file_is_an_error_unless_built_in(said: Said) -> None:
    assert insert(plan_of(Nothing("m", True, False, (WHY,))), FakeKernel(), said.how()) == -ENOENT
    assert insert(plan_of(Nothing("m", True, True, (WHY,)), builtin=True), FakeKernel(), said.how()) == 0


def test_a_dry_run_shows_every_step_and_touches_nothing(said: Said) -> None:
    kernel = FakeKernel({"a": live("a")})
    shown: list[str] = []
    insert(plan_of(step("a"), step("b")), kernel, said.how(dry_run=True, show=shown.append))
    assert shown == ["insmod b o=1"]
    assert kernel.calls == []


def removal(name: str, **changes: object) -> Removal:
    return Removal(name, False, None, (), (), (), (WHY,))._replace(**changes)


def removing(*removals: Removal) -> RemovePlan:
    return RemovePlan("x", "/lib", removals, tuple[Complaint, ...]())


def test_removal_takes_dependencies_that_became_unused(said: Said) -> None:
    kernel = FakeKernel({"foo": live("foo"), "bar": live("bar", "foo"), "baz": live("baz", "foo", "other")})
    assert remove(removing(removal("foo", dependencies=("baz", "bar"))), kernel, said.how()) == 0
    assert kernel.calls == [("remove", "foo"), ("remove", "bar")]


def test_a_module_in_use_is_not_removed(said: Said) -> None:
    kernel = FakeKernel({"foo": live("foo", "bar")})
    assert remove(removing(removal("foo")), kernel, said.how()) == -EBUSY
    assert said.lines == ["FATAL: Module foo is in use."]


def test_holders_are_removed_first_when_asked(said: Said) -> None:
    kernel = FakeKernel({"foo": live("foo", "bar"), "bar": live("bar")})
    assert remove(removing(removal("foo")), kernel, said.how(remove_holders=True, holder_plan=removal)) == 0
    assert kernel.calls == [("remove", "bar"), ("remove", "foo")]


def test_what_is_not_loaded_is_fine_unless_it_is_the_first_time(said: Said) -> None:
    assert remove(removing(removal("foo")), FakeKernel(), said.how()) == 0
    assert remove(removing(removal("foo")), FakeKernel(), said.how(first_time=True)) == -ENOENT
    assert said.lines == ["FATAL: Module foo is not in kernel."]


def test_a_built_in_module_cannot_be_removed(said: Said) -> None:
    assert remove(removing(removal("foo", builtin=True)), FakeKernel(), said.how()) == -ENOENT
    assert said.lines == ["FATAL: Module foo is builtin."]


def test_soft_dependencies_are_removed_around_the_module(said: Said) -> None:
    kernel = FakeKernel({name: live(name) for name in ("before", "foo", "after")})
    remove(removing(removal("foo", post=(removal("before"),), pre=(removal("after"),))), kernel, said.how())
    assert [name for _, name in kernel.calls] == ["before", "foo", "after"]


def test_a_loop_is_passed_over(said: Said) -> None:
    kernel = FakeKernel({"foo": live("foo")})
    assert remove(removing(removal("foo", loop=True)), kernel, said.how()) == 0
    assert kernel.calls == []


def test_sys_module_is_read_as_loaded_modules(tmp_path: Path) -> None:
    DepotRoot(tmp_path).loaded("foo", 2, ("a",), size=123).conf("sys/module/early/parameters/x", "1").write()
    modules = SysModules(str(tmp_path))
    assert modules["foo"] == Loaded("foo", "live", 2, 123, ("a",))
    assert modules["early"].state == "coming"
    assert "none" not in modules
    assert list(modules) == ["foo"]


def test_a_root_directory_refuses_to_be_changed(tmp_path: Path) -> None:
    with pytest.raises(NotModelled, match="has no kernel to change"):
        RootTarget(str(tmp_path)).insert("x.ko", "", 0)


def test_executing_from_python_says_what_was_done() -> None:
    assert execute(plan_of(step("a"), step("b")), FakeKernel()) == ["insmod a o=1", "insmod b o=1"]


def test_executing_from_python_raises_what_went_wrong() -> None:
    with pytest.raises(Errno, match="could not insert 'a': Exec format error") as raised:
        execute(plan_of(step("a")), FakeKernel(failures={"a": ENOEXEC}))
    assert raised.value.number == ENOEXEC
    with pytest.raises(Errno, match="not found in directory /lib"):
        execute(InsertPlan("x", "/lib", (), ()), FakeKernel())
    with pytest.raises(Errno, match="Module foo is in use"):
        execute(removing(removal("foo")), FakeKernel({"foo": live("foo", "bar")}))

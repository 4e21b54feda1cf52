"""depmod on trees built here: what is written, which module wins, what is said, and what a failure leaves."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import UNDEF, KoBuilder
from kobox.cli import depmod as command
from kobox.depot import depmod_write
from kobox.depot.depmod import DepmodOptions, DepmodResult, depmod, is_up_to_date
from kobox.depot.depmod_config import SearchRules, read_search_rules
from kobox.depot.depmod_graph import Cycles, all_needs, direct_needs, load_ranks
from kobox.depot.depmod_search import DepmodError
from kobox.depot.depmod_write import FILES
from kobox.depot.index import IndexFile
from kobox.depot.index_write import PARENTS_FIRST
from kobox.depot.tree import ModuleTree

RELEASE = "6.1.0-test"
Names = tuple[str, ...]


class Tree:
    """A module tree in the making, and depmod on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "lib/modules" / RELEASE
        self.path.mkdir(parents=True)
        self.said: list[tuple[str, str]] = []
        self.shown: list[str] = []

    def module(
        self,
        path: str,
        exports: tuple[str, ...] = (),
        needs: tuple[str, ...] = (),
        info: tuple[tuple[str, str], ...] = (),
    ) -> Tree:
        builder = KoBuilder().text()
        for name in exports:
            builder.export(name)
        for name in needs:
            builder.symbol(name, UNDEF)
        return self.file(path, builder.modinfo(*info, license="GPL").build())

    def file(self, path: str, data: bytes) -> Tree:
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return self

    def order(self, *lines: str) -> Tree:
        return self.file("modules.order", "".join(line + "\n" for line in lines).encode())

    def run(self, **options: object) -> DepmodResult:
        chosen = DepmodOptions(str(self.path), RELEASE, config=(), processes=1)._replace(**options)  # type: ignore[arg-type]
        return depmod(chosen, lambda level, text: self.said.append((level, text)), self.shown.append)

    def text(self, name: str) -> str:
        return (self.path / name).read_text()

    def contents(self) -> dict[str, bytes]:
        return {name: (self.path / name).read_bytes() for name in FILES if (self.path / name).exists()}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def chain(tree: Tree) -> Tree:
    """c needs b needs a."""
    tree.module("kernel/c.ko", needs=("b_one", "printk"))
    tree.module("kernel/b-b.ko", exports=("b_one",), needs=("a_one", "a_two"), info=(("softdep", "pre: x"),))
    tree.module("kernel/a.ko", exports=("a_one", "a_two"), info=(("alias", "fs-a"), ("weakdep", "y")))
    return tree.order("kernel/a.ko", "kernel/b-b.ko", "kernel/c.ko")


# --- what is written -------------------------------------------------------------------------------------------------


def test_every_file_is_written_and_nothing_else_is_left(chain: Tree) -> None:
    chain.file("modules.builtin", b"kernel/x/built-in.ko\n").file("modules.builtin.modinfo", b"built_in.alias=fs-x\0")
    result = chain.run()
    assert result.written == FILES
    assert sorted(path.name for path in chain.path.glob("modules.*")) == sorted(
        [*FILES, "modules.order", "modules.builtin", "modules.builtin.modinfo"]
    )
    with IndexFile(chain.path / "modules.builtin.bin") as index:
        assert [key for key, _ in index.dump()] == ["built_in"]
    with IndexFile(chain.path / "modules.builtin.alias.bin") as index:
        assert [(key, entry.value) for key, entry in index.dump()] == [("fs_x", "built_in")]


def test_dependencies_are_written_nearest_first_with_everything_below_them(chain: Tree) -> None:
    chain.run()
    assert chain.text("modules.dep") == (
        "kernel/a.ko:\nkernel/b-b.ko: kernel/a.ko\nkernel/c.ko: kernel/b-b.ko kernel/a.ko\n"
    )
    with IndexFile(chain.path / "modules.dep.bin") as index:
        assert index.lookup("b_b") == [(1, "kernel/b-b.ko: kernel/a.ko")]


def test_aliases_symbols_and_soft_dependencies_name_their_module(chain: Tree) -> None:
    chain.run()
    assert chain.text("modules.alias").splitlines()[1:] == ["alias fs-a a"]
    assert chain.text("modules.softdep").splitlines()[1:] == ["softdep b_b pre: x"]
    assert chain.text("modules.weakdep").splitlines()[1:] == ["weakdep a y"]
    assert sorted(chain.text("modules.symbols").splitlines()[1:]) == [
        "alias symbol:a_one a",
        "alias symbol:a_two a",
        "alias symbol:b_one b_b",
    ]


def test_a_dash_becomes_an_underscore_in_the_index_only(tree: Tree) -> None:
    tree.module("x.ko", info=(("alias", "a-b[c-d]-e"), ("alias", "broken[x"))).order("x.ko").run()
    assert "alias a-b[c-d]-e x\nalias broken[x x\n" in tree.text("modules.alias")
    with IndexFile(tree.path / "modules.alias.bin") as index:
        assert [key for key, _ in index.dump()] == ["a_b[c-d]_e"]
    assert ("WARNING", "Unmatched bracket in broken[x") in tree.said


def test_device_names_are_written_with_their_numbers(tree: Tree) -> None:
    tree.module("fuse.ko", info=(("alias", "char-major-10-229"), ("alias", "devname:fuse")))
    tree.module("half.ko", info=(("alias", "char-major-10-*"), ("alias", "devname:half"))).order("fuse.ko", "half.ko")
    tree.run()
    assert tree.text("modules.devname").splitlines()[1:] == ["fuse fuse c10:229"]
    assert tree.said[-1] == (
        "ERROR",
        "Module 'half' has devname (half) but lacks major and minor information. Ignoring.",
    )


def test_a_dry_run_shows_the_texts_and_writes_nothing(chain: Tree) -> None:
    result = chain.run(dry_run=True)
    assert result.text.startswith(b"kernel/a.ko:\n")
    assert [line for line in result.text.decode().splitlines() if line.startswith("#")] == [
        "# Aliases extracted from modules themselves.",
        "# Soft dependencies extracted from modules themselves.",
        "# Weak dependencies extracted from modules themselves.",
        "# Aliases for symbols, used by symbol_request().",
    ]
    assert chain.contents() == {}


def test_files_can_be_written_elsewhere(chain: Tree, tmp_path: Path) -> None:
    chain.run(output=str(tmp_path / "out/deep"))
    assert chain.contents() == {}
    assert (tmp_path / "out/deep/modules.dep").read_text().startswith("kernel/a.ko:")


def test_both_orders_of_nodes_say_the_same(chain: Tree, tmp_path: Path) -> None:
    chain.run()
    chain.run(output=str(tmp_path / "out"), order=PARENTS_FIRST)
    with IndexFile(chain.path / "modules.dep.bin") as one, IndexFile(tmp_path / "out/modules.dep.bin") as other:
        assert list(one.dump()) == list(other.dump())


# --- which modules, in which order -----------------------------------------------------------------------------------


def test_modules_that_the_order_does_not_name_come_last(tree: Tree) -> None:
    for name in ("q", "r", "s", "t"):
        tree.module(f"{name}.ko")
    result = tree.order("s.ko", "q.ko").run()
    assert [module.name for module in result.modules][:2] == ["s", "q"]
    assert [module.index for module in result.modules] == [0, 1, 2, 3]


def test_an_order_that_is_cut_off_is_not_used(tree: Tree) -> None:
    tree.module("a.ko").file("modules.order", b"a.ko\nb").run()
    assert ("ERROR", f"{tree.path}/modules.order:2 corrupted line misses '\\n'") in tree.said


def test_compressed_modules_are_found_under_their_plain_name_in_the_order(tree: Tree) -> None:
    data = KoBuilder().text().modinfo(license="GPL").build()
    tree.file("kernel/a.ko.gz", __import__("gzip").compress(data)).file("kernel/b.ko", data)
    result = tree.order("kernel/a.ko", "kernel/b.ko").run()
    assert [module.shown for module in result.modules] == ["kernel/a.ko.gz", "kernel/b.ko"]


@pytest.mark.parametrize(
    ("rules", "winner"),
    [
        (SearchRules(), "updates/m.ko"),
        (SearchRules(searches=("built-in", "updates")), "updates/m.ko"),
        (SearchRules(searches=("updates", "extra", "built-in")), "kernel/m.ko"),
        (SearchRules(searches=("built-in", "updates", "extra")), "extra/m.ko"),
        (SearchRules(overrides=("extra/m",)), "extra/m.ko"),
    ],
)
def test_the_search_rules_decide_between_modules_of_one_name(rules: SearchRules, winner: str) -> None:
    paths = ["kernel/m.ko", "updates/m.ko", "extra/m.ko"]
    for shift in range(3):
        kept = "/t/" + paths[shift]
        for path in [*paths[shift + 1 :], *paths[:shift]]:
            if not rules.keeps("/t", kept, "/t/" + path, "m"):
                kept = "/t/" + path
        assert kept == "/t/" + winner or (winner == "updates/m.ko" and rules == SearchRules() and shift == 1)


def test_configuration_files_are_read_by_name_and_the_first_of_a_name_counts(tmp_path: Path) -> None:
    for folder, name, text in [
        ("etc", "b.conf", "search extra built-in\n"),
        ("run", "b.conf", "search never\n"),
        ("run", "a.conf", "override m 6.1 here\nexternal * /ext \\\n\nexclude x y\nnonsense 1\ninclude z\n"),
        ("run", "other", "search never\n"),
    ]:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    said: list[tuple[str, str]] = []
    paths = [str(tmp_path / "etc"), str(tmp_path / "run"), str(tmp_path / "missing")]
    rules = read_search_rules(paths, RELEASE, lambda level, text: said.append((level, text)))
    assert rules == SearchRules(("here/m",), ("built-in", "extra"), ("/ext",), frozenset(("x", "y")))
    assert ("ERROR", f"{tmp_path}/run/a.conf:5: ignoring bad line starting with 'nonsense'") in said
    assert ("INFO", f"All cfg files need .conf: {tmp_path}/run/other") in said


def test_rules_for_another_kernel_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_text("override m ^5 here\nexternal ^5 /ext\noverride n ( bad\n")
    assert read_search_rules([str(tmp_path)], RELEASE, lambda *_: None) == SearchRules()


def test_excluded_and_external_directories(tree: Tree, tmp_path: Path) -> None:
    tree.module("kernel/a.ko").module("skipped/b.ko").order("kernel/a.ko")
    external = Tree(tmp_path / "elsewhere").module("c.ko", exports=("x",))
    conf = tmp_path / "x.conf"
    conf.write_text(f"exclude skipped\nexternal * {external.path}\n")
    result = tree.run(config=(str(conf),))
    assert [module.shown for module in result.modules] == ["kernel/a.ko", f"{external.path}/c.ko"]


def test_external_directories_of_another_system_lie_below_it_and_are_named_as_it_sees_them(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "mnt")
    tree.module("kernel/both.ko").module("kernel/user.ko", needs=("x",)).order("kernel/both.ko", "kernel/user.ko")
    extra = "../../../opt/extra"
    tree.module(f"{extra}/both.ko").module(f"{extra}/provider.ko", exports=("x",))
    conf = tmp_path / "x.conf"
    conf.write_text("external * /opt/extra\nsearch external built-in\n")
    result = tree.run(config=(str(conf),), root=str(tree.root))
    assert {module.shown: module.path for module in result.modules} == {
        "kernel/user.ko": str(tree.path / "kernel/user.ko"),
        "/opt/extra/both.ko": str(tree.root / "opt/extra/both.ko"),
        "/opt/extra/provider.ko": str(tree.root / "opt/extra/provider.ko"),
    }
    assert "kernel/user.ko: /opt/extra/provider.ko\n" in (tree.path / "modules.dep").read_text()
    with ModuleTree(tree.root, RELEASE) as written:
        assert written.find("provider") == str(tree.root / "opt/extra/provider.ko")


def test_links_are_followed_and_broken_ones_are_reported(tree: Tree) -> None:
    tree.module("kernel/a.ko").order("kernel/a.ko")
    (tree.path / "linked.ko").symlink_to("kernel/a.ko")
    (tree.path / "broken.ko").symlink_to("nowhere")
    (tree.path / "source").symlink_to("nowhere")
    assert [module.name for module in tree.run().modules] == ["a", "linked"]
    assert tree.said == [
        ("ERROR", f"could not stat {tree.path}/broken.ko: No such file or directory"),
        ("WARNING", f"could not open modules.builtin at {tree.path}: No such file or directory"),
        ("WARNING", f"could not open modules.builtin.modinfo at {tree.path}: No such file or directory"),
    ]


def test_odd_names_are_indexed_as_they_are(tree: Tree) -> None:
    names = ["with space", "ümlaut", "a'b\"c", "-dash", "per%cent", ".hidden"]
    for name in names:
        tree.module(f"kernel/{name}.ko")
    result = tree.run()
    assert {module.shown for module in result.modules} == {f"kernel/{name}.ko" for name in names}
    assert (tree.path / "modules.dep").read_bytes().count(b"\n") == len(names)
    assert ("ERROR", "Module index: only 7-bit ASCII is supported, left out: ümlaut") in tree.said
    with IndexFile(tree.path / "modules.dep.bin") as index:
        assert index.lookup("with space")[0].value == "kernel/with space.ko:"


# --- dependencies ----------------------------------------------------------------------------------------------------


def test_a_cycle_is_named_and_nothing_is_written(tree: Tree) -> None:
    tree.module("a.ko", exports=("a",), needs=("b",)).module("b.ko", exports=("b",), needs=("a",)).order("a.ko", "b.ko")
    with pytest.raises(DepmodError) as raised:
        tree.run()
    assert raised.value.told
    assert [text for level, text in tree.said if level == "ERROR"] == [
        "Cycle detected: a -> b -> a",
        "Found 2 modules in dependency cycles!",
    ]
    assert tree.contents() == {}


def test_a_cycle_beside_another_one_ends() -> None:
    needs = [[1, 2], [0], [3], [2]]
    with pytest.raises(Cycles) as raised:
        load_ranks(needs, ["a", "b", "c", "d"])
    assert raised.value.lines[-1].startswith("Found ")
    assert any("c -> d -> c" in line or "d -> c -> d" in line for line in raised.value.lines)


def test_everything_needed_is_listed_behind_what_needs_it() -> None:
    rng = random.Random(3)
    for _ in range(50):
        needs = [sorted(rng.sample(range(index), min(index, rng.randrange(4)))) for index in range(30)]
        ranks = load_ranks(needs, [str(index) for index in range(30)])
        for index, listed in enumerate(all_needs(needs, ranks)):
            expected: set[int] = set()
            for other in range(index, -1, -1):
                if other == index or other in expected:
                    expected.update(needs[other])
            assert set(listed) == expected
            for place, one in enumerate(listed):
                assert not set(needs[one]) & set(listed[:place])


def test_the_last_module_that_exports_a_symbol_is_taken(tree: Tree) -> None:
    tree.module("a.ko", exports=("same",)).module("b.ko", exports=("same",)).module("c.ko", needs=("same",))
    tree.order("b.ko", "a.ko", "c.ko").run()
    assert "c.ko: a.ko\n" in tree.text("modules.dep")
    assert direct_needs([[b"same", b"other", b"same"]], {b"same": 1}) == [[1]]


# --- what is said ----------------------------------------------------------------------------------------------------


def test_verbose_says_which_symbol_is_needed(chain: Tree) -> None:
    chain.run(verbose=True)
    assert chain.shown == [
        f'{chain.path}/kernel/b-b.ko needs "a_one": {chain.path}/kernel/a.ko\n',
        f'{chain.path}/kernel/c.ko needs "b_one": {chain.path}/kernel/b-b.ko\n',
    ]


def test_unknown_symbols_are_reported_when_the_kernels_are_known(chain: Tree, tmp_path: Path) -> None:
    (tmp_path / "System.map").write_text("0 T x\n0 r __ksymtab_other\n")
    chain.run(report_unknown=True, system_map=str(tmp_path / "System.map"))
    assert ("WARNING", f"{chain.path}/kernel/c.ko needs unknown symbol printk") in chain.said
    chain.said.clear()
    (tmp_path / "Module.symvers").write_text("0x12\tprintk\tvmlinux\tEXPORT_SYMBOL\n0x1\tb_one\tb\tEXPORT_SYMBOL\n")
    chain.run(report_unknown=True, symvers=str(tmp_path / "Module.symvers"))
    assert ("WARNING", f"{chain.path}/kernel/c.ko disagrees about version of symbol printk") in chain.said


def test_unknown_symbols_need_a_list_of_the_kernels(chain: Tree) -> None:
    chain.run(report_unknown=True)
    assert chain.said[0] == ("WARNING", "-e needs -E or -F")


def test_a_list_that_is_missing_ends_the_run(chain: Tree) -> None:
    with pytest.raises(DepmodError, match="could not load /nowhere: No such file"):
        chain.run(symvers="/nowhere")


def test_duplicates_are_reported_when_asked_for(tree: Tree) -> None:
    tree.module("a.ko", info=(("alias", "x-y"), ("alias", "x_y"))).order("a.ko").run(warn_duplicates=True)
    assert ("WARNING", "duplicate module alias:\nx_y a") in tree.said


def test_a_module_that_cannot_be_read_is_reported_and_indexed_by_name(tree: Tree) -> None:
    tree.module("good.ko", exports=("g",)).file("bad.ko", b"no module at all").order("good.ko", "bad.ko").run()
    assert tree.said[0] == ("ERROR", f"failed to load symbols from {tree.path}/bad.ko: Exec format error")
    assert tree.text("modules.dep") == "good.ko:\nbad.ko:\n"


def test_a_module_that_vanishes_while_the_tree_is_read_is_reported(tree: Tree) -> None:
    tree.module("a.ko", exports=("a",)).module("b.ko")

    def take_away(level: str, text: str) -> None:
        tree.said.append((level, text))
        if "modules.order" in text:  # said between finding modules and reading them
            (tree.path / "a.ko").unlink()

    depmod(DepmodOptions(str(tree.path), RELEASE, config=(), processes=1), take_away)
    assert ("ERROR", f"failed to load symbols from {tree.path}/a.ko: No such file or directory") in tree.said
    assert sorted(tree.text("modules.dep").splitlines()) == ["a.ko:", "b.ko:"]


# --- failures leave the old index ------------------------------------------------------------------------------------


def test_a_missing_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(DepmodError, match="could not search modules: No such file or directory"):
        depmod(DepmodOptions(str(tmp_path / "none"), RELEASE, config=()))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_file_that_cannot_be_written_leaves_the_old_index(
    chain: Tree, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    chain.run()
    old = chain.contents()
    chain.module("kernel/d.ko", needs=("a_one",))
    written = 0
    write = os.write

    def fails_late(fd: int, data: bytes) -> int:
        nonlocal written
        written += 1
        if written > 4:
            raise OSError(number, os.strerror(number))
        return write(fd, data)

    monkeypatch.setattr(depmod_write.os, "write", fails_late)
    with pytest.raises(DepmodError, match=os.strerror(number)):
        chain.run()
    assert chain.contents() == old
    assert len(list(chain.path.glob("modules.*"))) == len(FILES) + 1


def test_a_full_disk_leaves_the_old_index(chain: Tree) -> None:
    chain.run()
    old = chain.contents()
    chain.module("kernel/d.ko", info=tuple(("alias", f"very-long-alias-{number}") for number in range(3000)))

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        # -B: the interpreter's own files would be cut short as well, and stay so
        [sys.executable, "-B", "-m", "kobox", "depmod", "--no-cache", "-b", str(chain.root), RELEASE],
        capture_output=True,
        text=True,
        preexec_fn=small_files,
        check=False,
    )
    assert done.returncode == 1
    assert "File too large; the index is unchanged" in done.stderr
    assert chain.contents() == old


def test_temporary_files_of_a_killed_run_are_removed_by_the_next(chain: Tree) -> None:
    chain.file("modules.dep.999999999.123.456", b"left").file(f"modules.dep.{os.getppid()}.123.456", b"of a living one")
    chain.run()
    assert not (chain.path / "modules.dep.999999999.123.456").exists()
    assert (chain.path / f"modules.dep.{os.getppid()}.123.456").exists()


def kill_at_random_points(chain: Tree, times: int) -> None:
    """Change the tree, start depmod, kill it somewhere; each file must be the old or the new one, whole."""
    rng = random.Random(11)
    chain.run()
    for attempt in range(times):
        old = chain.contents()
        info = tuple(("alias", f"round-{attempt}-{number}") for number in range(2000))
        chain.module("kernel/d.ko", exports=(f"d_{attempt}",), info=info)
        child = subprocess.Popen(
            [sys.executable, "-m", "kobox", "depmod", "--no-cache", "-b", str(chain.root), RELEASE],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0, 0.25))
        child.send_signal(signal.SIGKILL)
        child.wait()
        left = chain.contents()
        chain.run()
        new = chain.contents()
        for name in FILES:
            assert left[name] in (old[name], new[name]), f"{name} after kill {attempt}"


def test_a_killed_run_leaves_each_file_old_or_new(chain: Tree) -> None:
    kill_at_random_points(chain, 5)


@pytest.mark.full
def test_a_hundred_killed_runs_leave_each_file_old_or_new(chain: Tree) -> None:
    kill_at_random_points(chain, 100)


@pytest.mark.full
def test_as_many_modules_as_two_bytes_can_number_are_indexed(tree: Tree) -> None:
    data = KoBuilder().text().modinfo(license="GPL").build()
    (tree.path / "kernel").mkdir()
    for number in range(65_536):
        (tree.path / f"kernel/synthetic-module-{number:05}.ko").write_bytes(data)
    result = tree.run(processes=0)
    assert len(result.modules) == 65_536
    with IndexFile(tree.path / "modules.dep.bin") as index:
        assert index.lookup("synthetic_module_65535")[0].value == "kernel/synthetic-module-65535.ko:"


# --- the command -----------------------------------------------------------------------------------------------------


def test_quick_does_nothing_until_a_module_is_newer(chain: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-A", "--no-cache", "-b", str(chain.root), RELEASE]
    assert command.main(arguments) == 0
    assert "could not fstatat" in capsys.readouterr().err
    assert is_up_to_date(str(chain.path))
    (chain.path / "modules.dep").write_text("mine")
    os.utime(chain.path / "kernel/a.ko", ns=(0, 0))
    assert command.main(arguments) == 0
    assert chain.text("modules.dep") == "mine"
    os.utime(chain.path / "kernel/a.ko")
    assert command.main(arguments) == 0
    assert chain.text("modules.dep").startswith("kernel/a.ko:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "depmod: ERROR: Bad version passed nonsense\n"),
        (["-P", "ab", "6.1"], "depmod: FATAL: -P only takes a single char\n"),
        (["--frob"], "depmod: unrecognized option '--frob'\n"),
        (["-b"], "depmod: option requires an argument -- 'b'\n"),
        (["-n", "-b", "/nowhere", "6.1", "relative.ko"], "depmod: FATAL: relative.ko: not absolute path.\n"),
    ],
)
def test_wrong_use_is_told_as_kmod_tells_it(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 1
    assert capsys.readouterr().err == message


def test_single_files_can_be_indexed(chain: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(chain.path / "kernel/c.ko"), str(chain.path / "kernel/b-b.ko")]
    assert command.main(["-n", "-b", str(chain.root), RELEASE, *paths]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["kernel/b-b.ko:", "kernel/c.ko: kernel/b-b.ko"]


def test_the_order_of_nodes_is_that_of_the_roots_kmod(tmp_path: Path) -> None:
    assert command.order_of_root(str(tmp_path)) == "children-first"
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/kmod").write_bytes(b"\x7fELF...\0kmod version 34.2\0")
    assert command.order_of_root(str(tmp_path)) == "parents-first"
    (tmp_path / "usr/bin/kmod").write_bytes(b"\x7fELF...\0kmod version 30\0")
    assert command.order_of_root(str(tmp_path)) == "children-first"


def test_the_configuration_of_a_root_is_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = Tree(tmp_path).module("kernel/m.ko").module("extra/m.ko").order("kernel/m.ko")
    (tmp_path / "etc/depmod.d").mkdir(parents=True)
    (tmp_path / "etc/depmod.d/x.conf").write_text("override m * extra\n")
    assert command.main(["--root", str(tmp_path), "--no-cache", "--json", RELEASE]) == 0
    assert '"modules": 1' in capsys.readouterr().out
    assert tree.text("modules.dep") == "extra/m.ko:\n"

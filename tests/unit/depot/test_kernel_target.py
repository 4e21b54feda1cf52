"""Plans on a running kernel: a stand-in, and the real one."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from errno import EBUSY, ENOENT
from pathlib import Path

import pytest

from depot_roots import RELEASE, DepotRoot
from kobox.depot.kernel_target import KernelTarget
from kobox.depot.systems import open_system
from kobox.depot.targets import Loaded, execute
from kobox.errors import Errno, NotModelled


@dataclass
class Listed:
    name: str
    size: int = 4096
    refcount: int = 0
    users: tuple[str, ...] = ()
    state: str = "live"


@dataclass
class StandIn:
    modules: list[Listed] = field(default_factory=list)
    done: list[tuple[object, ...]] = field(default_factory=list)
    answer: int = 0

    def init_module(self, data: bytes, parameters: str = "", flags: int = 0) -> None:
        self.done.append((data, parameters, flags))

    def delete_module(self, name: str, flags: int) -> int:
        self.done.append((name, flags))
        return self.answer


def test_a_plan_loads_files_with_their_options(tmp_path: Path) -> None:
    root = DepotRoot(tmp_path).module("kernel/a.ko", needs=["kernel/b.ko.gz"], content=b"A")
    root.module("kernel/b.ko.gz", content=gzip.compress(b"B")).conf("etc/modprobe.d/x.conf", "options a x=1\n").write()
    kernel = StandIn()
    execute(open_system(str(tmp_path), RELEASE).resolver().insert("a"), KernelTarget(kernel))
    assert kernel.done == [(b"B", "", 0), (b"A", "x=1 ", 0)]


def test_what_the_kernel_lists_is_loaded() -> None:
    kernel = StandIn([Listed("a", 1, 2, ("b", "c")), Listed("d", state="loading")])
    loaded = KernelTarget(kernel).loaded()
    assert loaded["a"] == Loaded("a", "live", 2, 1, ("b", "c"))
    assert loaded["d"].state == "coming"


def test_refusals_are_errnos(tmp_path: Path) -> None:
    with pytest.raises(Errno) as raised:
        KernelTarget(StandIn(answer=-EBUSY)).remove("a", 0)
    assert raised.value.number == EBUSY
    with pytest.raises(Errno) as raised:
        KernelTarget(StandIn()).insert(str(tmp_path / "none.ko"), "", 0)
    assert raised.value.number == ENOENT


def test_commands_of_the_configuration_are_answered_or_refused_but_not_run() -> None:
    target = KernelTarget(StandIn())
    assert target.run_command("/bin/false", {}) == 1
    assert target.run_command("/bin/true", {}) == 0
    with pytest.raises(NotModelled, match="rm -rf"):
        target.run_command("rm -rf /", {})


def test_the_caller_may_say_how_commands_are_run() -> None:
    assert KernelTarget(StandIn(), run=lambda command, environment: 7).run_command("anything", {}) == 7


@pytest.mark.image
def test_options_of_modprobe_d_reach_the_module_in_a_real_kernel(debian_root: Path, tmp_path: Path) -> None:
    import kobox

    source = next(path for path in (debian_root / "lib/modules").iterdir() if (path / "kernel").is_dir())
    bonding = next((source / "kernel").rglob("bonding.ko*"))
    tls = next((source / "kernel").rglob("tls.ko*"))
    root = DepotRoot(tmp_path, source.name)
    root.module(str(bonding), needs=[str(tls)]).module(str(tls))
    root.conf("etc/modprobe.d/x.conf", "options bonding mode=1 miimon=100 num_grat_arp=3\n").write()
    plan = open_system(str(tmp_path), source.name).resolver().insert("bonding")
    with kobox.boot(str(debian_root)) as kernel:
        target = KernelTarget(kernel)
        done = execute(plan, target)
        assert [line.split()[0] for line in done] == ["insmod", "insmod"]
        assert kernel.read("/sys/module/bonding/parameters/num_grat_arp") == b"3\n"
        assert kernel.read("/sys/class/net/bond0/bonding/mode") == b"active-backup 1\n"
        assert kernel.read("/sys/class/net/bond0/bonding/miimon") == b"100\n"
        assert execute(plan, target) == []

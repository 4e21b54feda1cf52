"""On Debian's tree: the modules that an install line does not stop, shown with the installed modprobe in a dry run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kobox.audit.allowlist import allow_list, allow_list_text
from kobox.audit.fixes import fix_lines, with_lines
from kobox.audit.policy import immune_modules
from kobox.audit.profiles import built_in_profiles, load_profile
from kobox.audit.ways import LOADS, System, expose
from kobox.depot.names import module_name_of_path
from kobox.depot.systems import open_system
from needs import need_program

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def system(debian_root: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    need_program("modprobe", "depmod")
    source = next(path for path in (debian_root / "lib/modules").iterdir() if (path / "kernel").is_dir())
    target = tmp_path_factory.mktemp("audited") / "lib/modules" / source.name
    shutil.copytree(source, target, copy_function=lambda one, two: os.symlink(one, two))
    root = target.parents[2]
    subprocess.run(["depmod", "-b", str(root), source.name], check=True, env=_environment())
    opened = open_system(str(root), source.name, "", sources=[str(root / "none")])
    return System(opened.config, opened.tree, opened.root)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "") + ":/sbin:/usr/sbin"}


def dry_run(system: System, directory: Path, lines: list[str], module: str) -> str:
    """What the installed modprobe would do with these lines as its whole configuration."""
    directory.mkdir(exist_ok=True)
    (directory / "00-kobox-audit.conf").write_text("".join(line + "\n" for line in lines))
    command = ["modprobe", "-C", str(directory), "-d", system.root, "-S", system.tree.release, "-n", "-v", module]
    return subprocess.run(command, capture_output=True, text=True, env=_environment()).stdout


def inserted(shown: str) -> set[str]:
    paths = [line.split()[1] for line in shown.splitlines() if line.startswith("insmod ")]
    return {module_name_of_path(path) for path in paths}


def inserts(shown: str, module: str) -> bool:
    return module in inserted(shown)


def test_the_29_modules_are_named_and_modprobe_agrees(system: System, tmp_path: Path) -> None:
    immune = immune_modules(system)
    assert len(immune) == 29
    for entry in immune:
        only_install = dry_run(system, tmp_path / "c", [f"install {entry.module} /bin/false"], entry.module)
        assert inserts(only_install, entry.module), entry.module
        assert entry.works
        assert not inserts(dry_run(system, tmp_path / "c", list(entry.stop), entry.module), entry.module), entry.module


def test_every_other_module_with_a_softdep_line_is_stopped_by_an_install_line(system: System, tmp_path: Path) -> None:
    named = {entry.module for entry in immune_modules(system)}
    others = {softdep.pattern for softdep in system.config.softdeps} - named
    assert others == {"cifs"}
    for module in others:
        assert not inserts(dry_run(system, tmp_path / "c", [f"install {module} /bin/false"], module), module)


@pytest.mark.parametrize("measure", ["none", "blacklist", "install", "fix"])
def test_every_way_of_the_profiles_modules_ends_as_modprobe_says(system: System, tmp_path: Path, measure: str) -> None:
    wanted = [unwanted.name for name in built_in_profiles() for unwanted in load_profile(name).modules]
    checked = 0
    for module in [*wanted, "btrfs", "ext4"]:
        lines = {
            "none": [],
            "blacklist": [f"blacklist {module}"],
            "install": [f"install {module} /bin/false"],
            "fix": fix_lines(module, system),
        }[measure]
        exposure = expose(module, system.with_config(with_lines(system.config, lines)))
        dependents = [way for way in exposure.ways if way.kind == "dependency"][:2]
        for way in [way for way in exposure.ways if way.kind in ("name", "kernel request", "device")][:5] + dependents:
            shown = dry_run(system, tmp_path / "c", lines, way.through)
            assert inserts(shown, module) == (way.outcome == LOADS), (module, way, shown)
            checked += 1
    assert checked > 60


def test_an_allow_list_leaves_modprobe_only_what_is_allowed(system: System, tmp_path: Path) -> None:
    listed = allow_list(["ext4", "virtio_net"], system)
    lines = [line for line in allow_list_text(listed, system).splitlines() if not line.startswith("blacklist ")]
    every = [name for name, _ in system.tree.all_deps()]
    (tmp_path / "00-allow.conf").write_text("".join(line + "\n" for line in lines))
    command = ["modprobe", "-C", str(tmp_path), "-d", system.root, "-S", system.tree.release, "-n", "-v", "-a", *every]
    shown = subprocess.run(command, capture_output=True, text=True, env=_environment()).stdout
    assert len(every) > 4000
    assert inserted(shown) == set(listed.allowed)

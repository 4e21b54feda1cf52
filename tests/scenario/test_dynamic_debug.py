"""Dynamic debug: the kernel's own control file on real modules, ``dyndbg=`` at load and on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kobox.box import Kernel, boot
from kobox.ko import read_module
from paths import EXAMPLES

pytestmark = pytest.mark.image

CONTROL = "/proc/dynamic_debug/control"
_LINE = re.compile(
    r"(?P<file>[^:]+):(?P<line>\d+) \[(?P<module>\w+)\](?P<function>\w+) =(?P<flags>\S+) \"(?P<format>.*)\""
)


def sites(kernel: Kernel, module: str) -> dict[str, tuple[str, str]]:
    """By format: function and flags."""
    lines = kernel.read(CONTROL).decode().splitlines()
    found = [match for line in lines if (match := _LINE.fullmatch(line)) and match["module"] == module]
    return {match["format"].removesuffix("\\n"): (match["function"], match["flags"]) for match in found}


def said(kernel: Kernel) -> list[str]:
    """What the module said from its pr_debug lines."""
    return [record.text for record in kernel.dmesg() if record.level == 7]


def test_a_loaded_modules_sites_are_listed_and_off(kernel: Kernel) -> None:
    kernel.insmod(EXAMPLES / "dyndbg.ko")
    assert sites(kernel, "dyndbg") == {
        "dyndbg: %u": ("count_down", "_"),
        "dyndbg: counting down from %u": ("launch_init", "_"),
        "dyndbg: splashdown": ("launch_exit", "_"),
    }
    kernel.rmmod("dyndbg")
    assert said(kernel) == []
    assert sites(kernel, "dyndbg") == {}


@pytest.mark.parametrize("control", [CONTROL, "/sys/kernel/debug/dynamic_debug/control"])
def test_both_control_files_switch_a_site_on_and_off(kernel: Kernel, control: str) -> None:
    kernel.insmod(EXAMPLES / "dyndbg.ko")
    kernel.write(control, "module dyndbg +p")
    assert {flags for _, flags in sites(kernel, "dyndbg").values()} == {"p"}
    kernel.write(control, "module dyndbg func launch_exit -p")
    assert sites(kernel, "dyndbg")["dyndbg: splashdown"] == ("launch_exit", "_")
    kernel.rmmod("dyndbg")
    assert said(kernel) == []


@pytest.mark.parametrize(
    ("query", "prefix"),
    [
        ("module dyndbg +p", ""),
        ("module dyndbg +pf", "launch_exit: "),
        ("module dyndbg +pl", "36: "),
        ("module dyndbg +pm", "dyndbg: "),
        ("module dyndbg +pmfl", "dyndbg:launch_exit:36: "),
        ("module dyndbg =pfl", "launch_exit:36: "),
        ("file dyndbg.c +p", ""),
        ("file *dyndbg.c func launch_e* +p", ""),
        ("line 36 module dyndbg +p", ""),
        ("module dyndbg line 30- +p", ""),
        ('format "splash" +p', ""),
        ("func launch_exit +p; module dyndbg +f", "launch_exit: "),
        ("module dyndbg +p\nmodule dyndbg +m\n", "dyndbg: "),
    ],
)
def test_queries_choose_and_flags_decorate(kernel: Kernel, query: str, prefix: str) -> None:
    kernel.insmod(EXAMPLES / "dyndbg.ko")
    assert kernel.write(CONTROL, query) == len(query)
    kernel.rmmod("dyndbg")
    assert said(kernel) == [f"{prefix}dyndbg: splashdown"]


def test_the_thread_is_shown_by_its_number(kernel: Kernel) -> None:
    kernel.insmod(EXAMPLES / "dyndbg.ko")
    kernel.write(CONTROL, "module dyndbg +pt")
    kernel.rmmod("dyndbg")
    assert re.fullmatch(r"\[\d+\] dyndbg: splashdown", said(kernel)[0])


@pytest.mark.parametrize("query", ["module dyndbg", "module dyndbg +z", "modul dyndbg +p", "line x +p", "file +p"])
def test_a_query_that_is_none_is_refused_as_the_kernel_does(kernel: Kernel, query: str) -> None:
    with pytest.raises(Exception, match="EINVAL"):
        kernel.write(CONTROL, query)


@pytest.mark.parametrize(
    ("query", "heard"),
    [
        ("+p", ["dyndbg: counting down from 2", "dyndbg: 2", "dyndbg: 1", "dyndbg: splashdown"]),
        ('"func count_down +pf"', ["count_down: dyndbg: 2", "count_down: dyndbg: 1"]),
        ('"func launch_* +p; func count_down -p"', ["dyndbg: counting down from 2", "dyndbg: splashdown"]),
        ("=_", []),
    ],
)
def test_dyndbg_as_a_parameter_is_heeded_before_init(kernel: Kernel, query: str, heard: list[str]) -> None:
    kernel.init_module((EXAMPLES / "dyndbg.ko").read_bytes(), f"from=2 dyndbg={query}")
    kernel.rmmod("dyndbg")
    assert said(kernel) == heard
    assert not any("dyndbg" in record.text and "unknown parameter" in record.text for record in kernel.dmesg())


@pytest.fixture(scope="module", params=["debian_root", "trixie_root"])
def each(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """The kernels of two releases, whose loaders tell dynamic debug of a module in different ways."""
    with boot(request.getfixturevalue(request.param)) as kernel:
        kernel.mark_pristine()
        yield kernel


def load_bonding(kernel: Kernel, parameters: str = "") -> None:
    assert kernel.modules_folder is not None
    tls, bonding = (next(kernel.modules_folder.rglob(f"{name}.ko*")) for name in ("tls", "bonding"))
    kernel.insmod(tls)
    kernel.init_module(bytes(read_module(bonding).data), parameters)


def test_a_module_of_the_distribution_has_its_sites_until_it_goes(each: Kernel) -> None:
    each.reset()
    load_bonding(each)
    found = sites(each, "bonding")
    assert len(found) > 20
    assert {flags for _, flags in found.values()} == {"_"}
    each.write(CONTROL, "module bonding func bond_set* +p")
    on = {function for function, flags in sites(each, "bonding").values() if flags == "p"}
    assert on
    assert all(function.startswith("bond_set") for function in on)
    each.rmmod("bonding")
    assert sites(each, "bonding") == {}


def test_a_module_of_the_distribution_says_more_when_it_is_asked_to(each: Kernel) -> None:
    each.reset()
    load_bonding(each, 'dyndbg="+pmf"')
    each.write("/sys/class/net/bonding_masters", "+kobox0")
    assert any(text.startswith("bonding:bond_check_params: Warning: either miimon") for text in said(each))
    assert any(text.startswith("kobox0") and "bond_init" in text for text in said(each))


def test_on_the_command_line_it_is_heeded_at_boot(debian_root: Path) -> None:
    with boot(debian_root, append='dyndbg="func really_probe +pf"') as kernel:
        lines = [record.text for record in kernel.dmesg(boot=True) if record.level == 7]
        assert any(text.startswith("really_probe: ") for text in lines), lines[:5]


def test_a_modules_setting_on_the_command_line_waits_for_the_module(debian_root: Path) -> None:
    with boot(debian_root, append='dyndbg.dyndbg="+pf"') as kernel:
        with pytest.raises(Exception, match="not loaded"):
            kernel.module("dyndbg").record  # noqa: B018
        parameters = _from_command_line(kernel, "dyndbg")
        kernel.init_module((EXAMPLES / "dyndbg.ko").read_bytes(), parameters)
        kernel.rmmod("dyndbg")
        assert said(kernel)[-1] == "launch_exit: dyndbg: splashdown"


def _from_command_line(kernel: Kernel, module: str) -> str:
    """What modprobe takes from /proc/cmdline for a module."""
    words = kernel.read("/proc/cmdline").decode().split()
    return " ".join(word.removeprefix(f"{module}.") for word in words if word.startswith(f"{module}."))

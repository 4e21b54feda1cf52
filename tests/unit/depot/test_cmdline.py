"""The kernel command line: module.param in all the forms that boot loaders leave behind."""

from __future__ import annotations

import pytest

from kobox.depot.cmdline import add_cmdline, kernel_blacklist, settings
from kobox.depot.facts import Place, empty_config


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("quiet rw\n", []),
        ("mod.p=1", [("mod", "p=1")]),
        ("mod.flag quiet", [("mod", "flag")]),
        ("mod.v=1.5G", [("mod", "v=1.5G")]),
        ('mod.s="a b" x', [("mod", 's="a b"')]),
        ('"mod.s=a b" x', [("mod", 's="a b"')]),
        ('mod."bad option" mod.ok', [("mod", "ok")]),
        ('" x" "y z" mod.ok', [("mod", "ok")]),
        ("a.b.c=1 mod.ok", [("mod", "ok")]),
        ("root=/dev/sda1.x mod.ok=/a.b", [("mod", "ok=/a.b")]),
        ('mod.s="unclosed x', []),
        ("mod.", [("mod", "")]),
        (".p=1", [("", "p=1")]),
        ("-- init.arg=1", [("init", "arg=1")]),
        ("", []),
    ],
)
def test_a_setting_is_found_where_kmod_finds_one(text: str, found: list[tuple[str, str]]) -> None:
    assert settings(text) == found


def test_settings_become_options_and_blacklists() -> None:
    config = empty_config()
    add_cmdline("snd-pcm.x=1 modprobe.blacklist=a-b,c modprobe.blacklist=d x[y.z=1", config, "/proc/cmdline")
    place = Place("/proc/cmdline", 1)
    assert config.options == [("snd_pcm", "x=1", place)]
    assert [fact.module for fact in config.blacklists] == ["a-b", "c", "d"]
    assert "'x[y'" in config.complaints[0].text


def test_the_kernels_own_blacklist_is_read_with_its_last_value() -> None:
    assert kernel_blacklist("module_blacklist=a module-blacklist=b-c,d quiet") == ["b_c", "d"]
    assert kernel_blacklist("modprobe.blacklist=a") == []


def test_only_what_kmod_reads_of_a_long_line_counts() -> None:
    assert settings("x" * 4096 + " mod.p=1") == []

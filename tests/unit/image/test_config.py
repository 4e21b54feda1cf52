"""The configuration is read as it was written."""

from __future__ import annotations

import gzip

from kobox.image.config import Config, embedded_config

TEXT = b"""# a comment
CONFIG_SMP=y
CONFIG_HZ=250
CONFIG_EXT4_FS=m
# CONFIG_KASAN is not set
CONFIG_LOCALVERSION=""
CONFIG_CC_VERSION_TEXT="gcc \\"quoted\\" 12"
CONFIG_LAST=y"""


def test_values_are_as_written_and_text_without_quotes() -> None:
    config = Config(TEXT)
    assert (config["SMP"], config["HZ"], config["LOCALVERSION"]) == ("y", "250", "")
    assert config["CC_VERSION_TEXT"] == 'gcc "quoted" 12'
    assert config["LAST"] == "y"


def test_names_come_with_or_without_the_prefix() -> None:
    assert Config(TEXT)["CONFIG_EXT4_FS"] == Config(TEXT)["EXT4_FS"] == "m"


def test_what_is_not_set_is_absent() -> None:
    config = Config(TEXT)
    assert "KASAN" not in config
    assert config.get("KASAN", "n") == "n"
    assert "EXT4" not in config


def test_enabled_is_built_in_or_a_module() -> None:
    config = Config(TEXT)
    assert [config.enabled(name) for name in ("SMP", "EXT4_FS", "HZ", "KASAN")] == [True, True, False, False]


def test_iteration_gives_the_options_in_order() -> None:
    assert list(Config(TEXT))[:3] == ["CONFIG_SMP", "CONFIG_HZ", "CONFIG_EXT4_FS"]
    assert len(Config(TEXT)) == 6


def test_no_configuration_is_an_empty_one() -> None:
    assert dict(Config(b"")) == {}


def test_the_copy_inside_a_kernel_is_found() -> None:
    assert embedded_config(bytes(100) + b"IKCFG_ST" + gzip.compress(TEXT) + b"IKCFG_ED" + bytes(100)) == TEXT
    assert embedded_config(bytes(1000)) is None
    assert embedded_config(b"IKCFG_ST\x1f\x8bdamaged" + b"IKCFG_ED") is None

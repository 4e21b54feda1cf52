"""A kernel's build as rules."""

from __future__ import annotations

from kobox.link.rules import Rules, default_rules


def test_configuration_decides_what_is_checked() -> None:
    rules = Rules.of(
        {"module": 900}, {"CONFIG_MODVERSIONS": "y", "CONFIG_LIVEPATCH": "n"}, memories=True, name_offset=24
    )
    assert rules.modversions
    assert rules.memories
    assert not rules.livepatch
    assert not rules.strict_rwx
    assert (rules.sizes["module"], rules.name_offset) == (900, 24)


def test_without_a_kernel_the_data_file_has_the_sizes() -> None:
    rules = default_rules()
    assert rules.sizes["kernel_symbol"] == 12
    assert rules.strict_rwx


def test_parts_are_only_rounded_to_pages_where_code_and_data_are_kept_apart() -> None:
    assert default_rules().page_align(1) == 4096
    assert default_rules().page_align(0xFFFFF001) == 0
    assert default_rules()._replace(strict_rwx=False).page_align(1) == 1

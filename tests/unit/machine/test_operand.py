"""The byte a memory operand names, from the instruction's bytes."""

from __future__ import annotations

import pytest

from kobox.machine.operand import faulting_address

NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
ZERO = dict.fromkeys(NAMES, 0x9999_0000_0000)
RIP = 0x40_0000


def at(code: str, page: int, **registers: int) -> int:
    return faulting_address(
        bytes.fromhex(code), RIP, page, ZERO | registers, lambda name: {"fs": 0x10_0000, "gs": 0x20_0000}[name]
    )


@pytest.mark.parametrize(
    ("code", "registers", "address"),
    [
        ("8b04250800000000", {}, 0x8),
        ("488b4108", {"rcx": 0x1000}, 0x1008),
        ("488b41f8", {"rcx": 0x1010}, 0x1008),
        ("498b4408 10".replace(" ", ""), {"r8": 0x1000, "rcx": 0x20}, 0x1030),
        ("488b848a44010000", {"rdx": 0x1000, "rcx": 4}, 0x1154),
        ("4a8b04c500100000", {"r8": 2}, 0x1010),
        ("488b4500", {"rbp": 0x1234}, 0x1234),
        ("668901", {"rcx": 0x1002}, 0x1002),
        ("0fb601", {"rcx": 0x1003}, 0x1003),
        ("f00fb111", {"rcx": 0x1004}, 0x1004),
        ("65488b042528100000", {}, 0x20_1028),
        ("f3a4", {"rsi": 0x5000, "rdi": 0x1005}, 0x1005),
        ("ff7008", {"rax": 0x1000}, 0x1008),
        ("488b05f90fc0ff", {}, 0x1000),
        ("c70500100000 01000000".replace(" ", ""), {}, 0x40_100A),
    ],
)
def test_the_operand_s_address_is_found(code: str, registers: dict[str, int], address: int) -> None:
    assert at(code, address & ~0xFFF, **registers) == address


def test_an_access_across_a_border_fails_at_the_second_page_s_first_byte() -> None:
    assert at("488b01", 0x2000, rcx=0x1FFC) == 0x2000


def test_what_does_not_fit_leaves_the_start_of_the_page() -> None:
    assert at("488b01", 0x7000, rcx=0x1000) == 0x7000
    assert at("90", 0x7000) == 0x7000
    assert at("48", 0x7000) == 0x7000
    assert at("488b", 0x7000) == 0x7000
    assert at("8b04", 0x7000) == 0x7000

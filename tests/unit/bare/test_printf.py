"""The log's formats: what goes in as C arguments, and what a kernel would print."""

from __future__ import annotations

import pytest

from kobox.bare.printf import render
from kobox.errors import GuestError

MEMORY = {0x1000: b"one", 0x2000: b"\x00\x0f\xff\x10"}
U64 = 1 << 64


class FakeMemory:
    def read(self, address: int, size: int) -> bytes:
        return MEMORY[address][:size]

    def read_cstr(self, address: int, limit: int = 4096) -> bytes:
        if address not in MEMORY:
            raise GuestError("not there")
        return MEMORY[address].split(b"\0")[0]

    def symbol_text(self, address: int) -> str:
        return "walk+0x5/0x10 [mod]"


def shown(form: str, *values: int) -> str:
    return render(FakeMemory(), form.encode(), iter([value % U64 for value in values])).decode()


@pytest.mark.parametrize(
    ("form", "values", "text"),
    [
        ("plain 100%%", (), "plain 100%"),
        ("%d %i", (-1, 7), "-1 7"),
        ("%d", (0xFFFF_FFFF,), "-1"),
        ("%u", (-1,), "4294967295"),
        ("%ld %lld", (-1, -5), "-1 -5"),
        ("%lu %llu %zu", (-1, 2, 3), "18446744073709551615 2 3"),
        ("%hd %hhu", (0x18000, 0x1FF), "-32768 255"),
        ("%x %X %#x %o", (255, 255, 255, 8), "ff FF 0xff 10"),
        ("[%5d] [%-5d] [%05d]", (42, 42, -42), "[   42] [42   ] [-0042]"),
        ("%08lx %#010x", (0xBEEF, 0xBEEF), "0000beef 0x0000beef"),
        ("%+d % d", (5, 5), "+5  5"),
        ("%.3d", (5,), "005"),
        ("%*d|%-*d|", (4, 1, 4, 2), "   1|2   |"),
        ("%*d|", (-4, 1), "1   |"),
        ("%c%c", (ord("o"), ord("k")), "ok"),
        ("%s [%5s] [%-5s] [%.2s]", (0x1000,) * 4, "one [  one] [one  ] [on]"),
        ("%s %s %s", (0, 7, 0x9000), "(null) (efault) (efault)"),
        ("%s", (-22,), "(efault)"),
        ("%p %px", (0x1234, 0x1234), "(____ptrval____) 1234"),
        ("%p", (0,), "(null)"),
        ("%pS %ps", (0x1234, 0x1234), "walk+0x5/0x10 [mod] walk [mod]"),
        ("%4ph %4phC %4phN", (0x2000,) * 3, "00 0f ff 10 00:0f:ff:10 000fff10"),
        ("%pe", (-22,), "-22"),
    ],
)
def test_a_format_prints_what_the_kernel_prints(form: str, values: tuple[int, ...], text: str) -> None:
    assert shown(form, *values) == text


def test_text_around_and_after_conversions_stays() -> None:
    assert shown("a %d b %s\n", 1, 0x1000) == "a 1 b one\n"

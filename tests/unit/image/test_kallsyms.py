"""kallsyms is found by its own consistency, in each order the kernel's build has used."""

from __future__ import annotations

import struct

import pytest

from image_builders import TEXT_BASE, kallsyms
from kobox.errors import BadFile
from kobox.image.kallsyms import read_kallsyms

PAD = bytes(range(256)) * 16

SYMBOLS = [
    ("per_cpu_start", 0, "A"),
    ("per_cpu_thing", 0x40, "A"),
    ("_text", TEXT_BASE, "T"),
    *((f"filler_{number}", TEXT_BASE + 4 + number * 3, "t") for number in range(1500)),
    ("_end", TEXT_BASE + 0x8000, "B"),
]


@pytest.mark.parametrize("order", ["before", "behind"])
@pytest.mark.parametrize("seqs", [False, True])
def test_every_layout_of_the_tables_is_read(order: str, seqs: bool) -> None:
    data = PAD + kallsyms(SYMBOLS, order, seqs, absolute=True) + PAD * 8
    found = read_kallsyms(data, TEXT_BASE, "kernel")
    rows = zip(found.names, found.addresses, found.types, strict=True)
    assert [(name.decode(), address, chr(kind)) for name, address, kind in rows] == SYMBOLS


@pytest.mark.parametrize("order", ["before", "behind"])
def test_a_kernel_without_absolute_symbols_has_unsigned_distances(order: str) -> None:
    symbols = SYMBOLS[2:]
    data = PAD + kallsyms(symbols, order, seqs=True, absolute=False) + PAD * 8
    found = read_kallsyms(data, TEXT_BASE, "kernel")
    assert list(found.addresses) == [address for _, address, _ in symbols]


def test_offsets_from_their_own_places_need_no_base() -> None:
    data = kallsyms(SYMBOLS[2:], "own places", seqs=True, absolute=False) + PAD * 8
    found = read_kallsyms(data, TEXT_BASE, "kernel")
    assert list(found.addresses) == [address for _, address, _ in SYMBOLS[2:]]


def test_a_name_longer_than_127_tokens_is_read() -> None:
    long = "x" * 300
    symbols = [*SYMBOLS[:5], (long, TEXT_BASE + 11, "T"), *SYMBOLS[6:]]
    found = read_kallsyms(PAD + kallsyms(symbols, "behind", True, True) + PAD * 8, TEXT_BASE, "kernel")
    assert found.names[5] == long.encode()


def test_a_token_table_without_its_index_is_passed_over() -> None:
    decoy = b"".join(bytes([code]) + b"\0" for code in range(0x30, 0x3A)) + bytes(8)
    data = decoy + PAD + kallsyms(SYMBOLS, "behind", True, True) + PAD * 8
    assert len(read_kallsyms(data, TEXT_BASE, "kernel").names) == len(SYMBOLS)


@pytest.mark.parametrize("entry", [0, 5, 0x2F, 0x30, 0xFF])
def test_an_index_that_is_wrong_anywhere_is_not_the_index(entry: int) -> None:
    data = bytearray(PAD + kallsyms(SYMBOLS, "behind", True, True) + PAD * 8)
    digits = data.index(b"0\x001\x002\x003\x00")
    first = data.index(struct.pack("<4H", 0, 1, 9, 12), digits)  # tokens "", "filler_", "__" and their NULs
    data[first + 2 * entry + 1] ^= 0x80
    with pytest.raises(BadFile, match="token table not found"):
        read_kallsyms(bytes(data), TEXT_BASE, "kernel")


def test_a_kernel_without_kallsyms_says_so() -> None:
    with pytest.raises(BadFile, match=r"token table not found.*CONFIG_KALLSYMS"):
        read_kallsyms(PAD * 64, TEXT_BASE, "kernel")


def test_damaged_names_are_not_taken_for_the_tables() -> None:
    data = bytearray(kallsyms(SYMBOLS, "behind", True, True) + PAD * 8)
    data[8] ^= 0x15  # the length of the first name
    with pytest.raises(BadFile, match="names and markers not found"):
        read_kallsyms(bytes(data), TEXT_BASE, "kernel")


def test_a_base_outside_the_kernel_is_not_believed() -> None:
    data = kallsyms(SYMBOLS, "behind", True, True) + PAD * 8
    broken = data.replace(struct.pack("<Q", TEXT_BASE), struct.pack("<Q", 0x1234))
    with pytest.raises(BadFile, match=f"no table of {len(SYMBOLS)} addresses"):
        read_kallsyms(broken, TEXT_BASE, "kernel")

"""LZO1X blocks decode: streams assembled by hand from the format's description, and real ones when lzop is here."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from kobox.image.lzo import unpack_lzo1x, unpack_lzop
from needs import need_program

END = b"\x11\x00\x00"


def test_literals_alone() -> None:
    assert unpack_lzo1x(bytes([17 + 5]) + b"hello" + END, 5) == b"hello"


def test_a_long_run_of_literals_counts_on_in_zero_bytes() -> None:
    text = bytes(range(200)) + bytes(range(100))
    assert unpack_lzo1x(b"\x00\x00" + bytes([300 - 3 - 15 - 255]) + text + END, 300) == text


def test_a_short_match_repeats_what_was_just_written() -> None:
    match = bytes([0b011_000_00 | 2 << 2, 0])  # length 4, distance 3, no literals behind
    assert unpack_lzo1x(bytes([17 + 4]) + b"xabc" + match + END, 8) == b"xabcabca"


def test_a_match_carries_up_to_three_literals_behind_it() -> None:
    match = bytes([0b010_000_10, 0]) + b"YZ"  # length 3, distance 1, two literals
    assert unpack_lzo1x(bytes([17 + 4]) + b"abcd" + match + END, 9) == b"abcddddYZ"


def test_after_few_literals_a_small_code_is_a_match_of_two() -> None:
    stream = bytes([17 + 4]) + b"abcd" + bytes([0b010_000_01, 0]) + b"X" + bytes([0, 0]) + END
    assert unpack_lzo1x(stream, 10) == b"abcddddXXX"


def test_a_far_match_reaches_behind_sixteen_kilobytes() -> None:
    text = random.Random(1).randbytes(0x5000)
    count = len(text) - 3 - 15
    head = b"\x00" + bytes(count // 255 - (count % 255 == 0)) + bytes([count % 255 or 255]) + text
    distance = 0x4800 - 0x4000
    match = bytes([16 | 5]) + (distance << 2).to_bytes(2, "little")
    assert unpack_lzo1x(head + match + END, 0x5007) == text + text[0x800:0x807]


def test_a_reference_before_the_start_is_an_error() -> None:
    with pytest.raises(ValueError, match="before the start"):
        unpack_lzo1x(bytes([17 + 4]) + b"abcd" + bytes([0b010_111_00, 5]) + END, 7)


def test_a_wrong_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="block of 5 bytes"):
        unpack_lzo1x(bytes([17 + 5]) + b"hello" + END, 6)


def test_no_header_is_an_error() -> None:
    with pytest.raises(ValueError, match="no lzop header"):
        unpack_lzop(b"nothing")


@pytest.mark.parametrize("level", ["-1", "-9"])
def test_what_the_real_tool_packs_is_unpacked(level: str) -> None:
    need_program("lzop")
    generator = random.Random(7)
    words = [generator.randbytes(generator.randint(1, 40)) for _ in range(300)]
    text = b"".join(generator.choice(words) for _ in range(40000)) + bytes(70000) + generator.randbytes(300000)
    done = subprocess.run([shutil.which("lzop") or "lzop", level], input=text, capture_output=True, check=True)
    assert unpack_lzop(done.stdout) == text

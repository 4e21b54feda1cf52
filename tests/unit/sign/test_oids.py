"""Object identifiers: numbers, text, and an image's own list."""

from __future__ import annotations

import struct

from kobox.sign import oids


def test_the_default_list_has_the_numbers_the_kernel_prints() -> None:
    registry = oids.default_registry()
    assert registry.look_up(oids.encoded("1.2.840.10030.4.3"))[0] == 0
    assert registry.look_up(oids.encoded(oids.DATA)) == (19, oids.DATA)
    assert registry.look_up(b"\x2a")[0] == 98


def test_an_identifier_is_printed_as_the_kernel_prints_it() -> None:
    assert oids.printed(oids.encoded("2.16.840.1.101.3.4.2.8")) == "2.16.840.1.101.3.4.2.8"
    assert oids.printed(b"") == "(bad)"
    assert oids.printed(b"\x2a\x86") == "1.2(bad)"
    assert oids.printed(b"\xff\x01") == "6.15.1"
    assert oids.printed(b"\x2a" + b"\x01" * 60) == ("1.2" + ".1" * 60)[:49]


def test_an_image_s_own_tables_make_a_registry() -> None:
    known = [oids.encoded(oids.DATA), oids.encoded(oids.SM2)]
    offsets = [0, len(known[0]), len(known[0]) + len(known[1])]
    padded = struct.pack("<3H", *offsets) + bytes(6)
    registry = oids.Registry.from_tables(padded, b"".join(known))
    assert registry.look_up(known[1]) == (1, oids.SM2)
    assert registry.look_up(b"\x2a") == (2, "")

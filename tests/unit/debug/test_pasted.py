"""What loggers put before a kernel line is taken away, and nothing else."""

from __future__ import annotations

import pytest

from kobox.debug.pasted import strip_prefix

LINE = "RIP: 0010:i+0x18/0x1000 [hello]"


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "[   12.345678] ",
        "[12345.000001] ",
        "<4>[   12.345678] ",
        "[   12.345678] [T1234] ",
        "[   12.345678][   C0] ",
        "[Fri Nov 20 23:10:12 2026] ",
        "Nov 20 23:10:12 myhost kernel: ",
        "Nov 20 23:10:12 myhost kernel: [   12.345678] ",
        "2026-11-20T23:10:12.123456+00:00 myhost kernel: ",
        "2026-11-20T23:10:12+0000 myhost kernel: [   12.345678] ",
        "kern  :warn  : [   12.345678] ",
        "> > [   12.345678] ",
        "4,1234,12345678,-;",
        "\x1b[32m[   12.345678] \x1b[0m",
    ],
)
def test_prefixes_are_stripped(prefix: str):
    assert strip_prefix(prefix + LINE + "\r\n") == LINE


def test_the_blanks_of_a_trace_line_stay():
    assert strip_prefix("[    1.000000]  do_one_initcall+0x59/0x220") == " do_one_initcall+0x59/0x220"


def test_a_frame_with_an_old_style_address_is_no_timestamp():
    assert strip_prefix("[<ffffffff810001d9>] ? printk+0x1/0x2") == "[<ffffffff810001d9>] ? printk+0x1/0x2"


def test_a_taint_list_is_no_caller_mark():
    assert strip_prefix("Tainted: [O]=OOT_MODULE") == "Tainted: [O]=OOT_MODULE"

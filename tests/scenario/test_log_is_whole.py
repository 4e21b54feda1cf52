"""However much a single call prints, every line of it is read before the kernel's ring wraps over it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel

pytestmark = pytest.mark.image

_LINES = 6000


def printing_loop(kernel: Kernel) -> int:
    """Guest code: ``for (n = rdi; n; n--) _printk(rsi, n)``."""
    area = kernel.guest.machine.area
    start = area.next_code
    head = bytes.fromhex("53 4154 50 4889fb 4989f4")  # push rbx, r12, rax; mov rbx, rdi; mov r12, rsi
    loop = bytes.fromhex("4c89e7 4889de 31c0")  # mov rdi, r12; mov rsi, rbx; xor eax, eax
    target = kernel.guest.first_symbol("_printk", "printk")
    call = b"\xe8" + struct.pack("<i", target - (start + len(head) + len(loop) + 5))
    back = bytes.fromhex("48ffcb 75") + struct.pack("<b", -(len(loop) + 5 + 5))  # dec rbx; jnz loop
    return area.code(head + loop + call + back + bytes.fromhex("58 415c 5b c3"))


@pytest.mark.parametrize("root", ["debian_root", "trixie_root"])
def test_thousands_of_lines_of_one_call_are_all_there(root: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(root)
    with kobox.boot(folder) as kernel:
        text = kernel.guest.machine.area.mailbox_addr + (1 << 20)
        kernel.guest.write(text, b"\x016line %lu of a module that talks much more than the ring can hold\n\0")
        before = len(kernel.dmesg())
        kernel.call(printing_loop(kernel), _LINES, text)
        said = [record.text.split()[1] for record in kernel.dmesg()[before:]]
    assert said == [str(number) for number in range(_LINES, 0, -1)]

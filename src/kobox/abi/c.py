"""C types of x86-64 as annotations: the signature of an adopted kernel function is written in them, once.

``Annotated[int, CType(...)]`` keeps width and sign for marshalling and stays a plain ``int`` for mypy. The System V
calling convention passes the first six in rdi, rsi, rdx, rcx, r8, r9.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple


class CType(NamedTuple):
    """``size`` in bytes; ``pointer``: an address, so that an errno becomes an ``ERR_PTR`` and text shows hex."""

    name: str
    size: int
    signed: bool = False
    pointer: bool = False

    def decode(self, register: int) -> int:
        """The value of this type in a 64-bit register."""
        bits = self.size * 8
        value = register & ((1 << bits) - 1)
        return value - (1 << bits) if self.signed and value >> (bits - 1) else value

    def encode(self, value: int) -> int:
        """The 64-bit register that holds ``value`` of this type (sign-extended as compilers do)."""
        return self.decode(value) & 0xFFFF_FFFF_FFFF_FFFF


int_ = Annotated[int, CType("int", 4, signed=True)]
uint = Annotated[int, CType("unsigned int", 4)]
long_ = Annotated[int, CType("long", 8, signed=True)]
ulong = Annotated[int, CType("unsigned long", 8)]
u64 = Annotated[int, CType("u64", 8)]
size_t = Annotated[int, CType("size_t", 8)]
gfp_t = Annotated[int, CType("gfp_t", 4)]
bool_ = Annotated[bool, CType("bool", 1)]
void_p = Annotated[int, CType("void *", 8, pointer=True)]
char_p = Annotated[int, CType("const char *", 8, pointer=True)]
fn_p = Annotated[int, CType("void (*)(void)", 8, pointer=True)]

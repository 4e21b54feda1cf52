"""The numbers of DWARF that are used here, by their standard names without the prefix."""

from __future__ import annotations

from typing import Final


class TAG:
    """Kinds of debugging entries."""

    ARRAY_TYPE: Final = 0x01
    ENUMERATION_TYPE: Final = 0x04
    FORMAL_PARAMETER: Final = 0x05
    LEXICAL_BLOCK: Final = 0x0B
    MEMBER: Final = 0x0D
    POINTER_TYPE: Final = 0x0F
    STRUCTURE_TYPE: Final = 0x13
    SUBROUTINE_TYPE: Final = 0x15
    TYPEDEF: Final = 0x16
    UNION_TYPE: Final = 0x17
    INLINED_SUBROUTINE: Final = 0x1D
    SUBRANGE_TYPE: Final = 0x21
    BASE_TYPE: Final = 0x24
    CONST_TYPE: Final = 0x26
    SUBPROGRAM: Final = 0x2E
    VARIABLE: Final = 0x34
    VOLATILE_TYPE: Final = 0x35
    RESTRICT_TYPE: Final = 0x37
    ATOMIC_TYPE: Final = 0x47


class AT:
    """Attributes."""

    SIBLING: Final = 0x01
    LOCATION: Final = 0x02
    NAME: Final = 0x03
    BYTE_SIZE: Final = 0x0B
    STMT_LIST: Final = 0x10
    LOW_PC: Final = 0x11
    HIGH_PC: Final = 0x12
    COMP_DIR: Final = 0x1B
    UPPER_BOUND: Final = 0x2F
    ABSTRACT_ORIGIN: Final = 0x31
    COUNT: Final = 0x37
    DATA_MEMBER_LOCATION: Final = 0x38
    SPECIFICATION: Final = 0x47
    TYPE: Final = 0x49
    RANGES: Final = 0x55
    CALL_COLUMN: Final = 0x57
    CALL_FILE: Final = 0x58
    CALL_LINE: Final = 0x59
    DATA_BIT_OFFSET: Final = 0x6B
    STR_OFFSETS_BASE: Final = 0x72
    ADDR_BASE: Final = 0x73
    RNGLISTS_BASE: Final = 0x74
    LOCLISTS_BASE: Final = 0x8C


class FORM:
    """How an attribute's value is written."""

    ADDR: Final = 0x01
    BLOCK2: Final = 0x03
    BLOCK4: Final = 0x04
    DATA2: Final = 0x05
    DATA4: Final = 0x06
    DATA8: Final = 0x07
    STRING: Final = 0x08
    BLOCK: Final = 0x09
    BLOCK1: Final = 0x0A
    DATA1: Final = 0x0B
    FLAG: Final = 0x0C
    SDATA: Final = 0x0D
    STRP: Final = 0x0E
    UDATA: Final = 0x0F
    REF_ADDR: Final = 0x10
    REF1: Final = 0x11
    REF2: Final = 0x12
    REF4: Final = 0x13
    REF8: Final = 0x14
    REF_UDATA: Final = 0x15
    INDIRECT: Final = 0x16
    SEC_OFFSET: Final = 0x17
    EXPRLOC: Final = 0x18
    FLAG_PRESENT: Final = 0x19
    STRX: Final = 0x1A
    ADDRX: Final = 0x1B
    REF_SUP4: Final = 0x1C
    STRP_SUP: Final = 0x1D
    DATA16: Final = 0x1E
    LINE_STRP: Final = 0x1F
    REF_SIG8: Final = 0x20
    IMPLICIT_CONST: Final = 0x21
    LOCLISTX: Final = 0x22
    RNGLISTX: Final = 0x23
    REF_SUP8: Final = 0x24
    STRX1: Final = 0x25
    STRX2: Final = 0x26
    STRX3: Final = 0x27
    STRX4: Final = 0x28
    ADDRX1: Final = 0x29
    ADDRX2: Final = 0x2A
    ADDRX3: Final = 0x2B
    ADDRX4: Final = 0x2C


class UT:
    """Kinds of units (version 5)."""

    COMPILE: Final = 1
    TYPE: Final = 2
    PARTIAL: Final = 3
    SKELETON: Final = 4
    SPLIT_COMPILE: Final = 5
    SPLIT_TYPE: Final = 6


class OP:
    """Operations of location expressions."""

    LIT0: Final = 0x30
    REG0: Final = 0x50
    REG31: Final = 0x6F
    STACK_VALUE: Final = 0x9F


_NAMES = "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15"
REGISTERS: tuple[str, ...] = tuple(_NAMES.split())
"""DWARF's numbering of the general registers on x86-64."""

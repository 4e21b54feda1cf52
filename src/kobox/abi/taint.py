"""The kernel's taint flags as a table: letter, bit, what sets it, whether it matters. Numbers and text, no state.

Follows ``include/linux/panic.h`` and ``kernel/panic.c``. A running kernel knows the first N flags (19 in 6.1, 20 since
6.15); the blank-padded ``Tainted:`` text has N columns, so the writer of that text must say N.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class TaintFlag(NamedTuple):
    """One flag. ``clear``: what the log prints while it is not set; ``matters``: advice for whoever reads a report."""

    bit: int
    letter: str
    name: str
    meaning: str
    cause: str
    set_by: str
    matters: str
    clear: str = " "
    module_carried: bool = False
    """Whether a module can carry the flag itself (``/sys/module/X/taint``)."""

    @property
    def mask(self) -> int:
        return 1 << self.bit


FLAGS: tuple[TaintFlag, ...] = (
    TaintFlag(
        0,
        "P",
        "PROPRIETARY_MODULE",
        "a module whose licence is not GPL-compatible was loaded",
        "a vendor driver (NVIDIA, VMware, …), or a module without MODULE_LICENSE",
        "loading a module whose license= is missing or none of the GPL-compatible texts, or that binds such a module",
        "kernel developers decline reports with P: reproduce without the module",
        clear="G",
        module_carried=True,
    ),
    TaintFlag(
        1,
        "F",
        "FORCED_MODULE",
        "a module was loaded although its version did not match",
        "insmod -f / modprobe -f, or a module stripped of vermagic or symbol versions",
        "loading with vermagic or CRC checks overridden or impossible",
        "yes: the module may have been built for other structures; rebuild it for this kernel",
        module_carried=True,
    ),
    TaintFlag(
        2,
        "S",
        "CPU_OUT_OF_SPEC",
        "the machine runs outside its specification",
        "user space wrote an MSR, late microcode loading, an unsupported CPU or platform",
        "/dev/cpu/N/msr written, microcode reloaded late, CPU feature checks at boot",
        "sometimes: suspect the hardware setup before the driver",
    ),
    TaintFlag(
        3,
        "R",
        "FORCED_RMMOD",
        "a module was unloaded by force while in use",
        "rmmod -f",
        "delete_module with O_TRUNC on a module in use, on kernels with MODULE_FORCE_UNLOAD",
        "yes: code or data still referenced may be gone; reboot before trusting anything",
    ),
    TaintFlag(
        4,
        "M",
        "MACHINE_CHECK",
        "the processor reported a hardware error",
        "failing memory, CPU or bus; sometimes overheating",
        "the machine-check handler",
        "yes: it is hardware; read the mce lines first",
    ),
    TaintFlag(
        5,
        "B",
        "BAD_PAGE",
        "memory management found a page or object in an impossible state",
        "use after free, a double free, a stray write, failing memory",
        "bad_page(), slab and KASAN/KFENCE reports",
        "yes: memory was corrupted before this report; find the first one",
    ),
    TaintFlag(
        6,
        "U",
        "USER",
        "user space asked for the taint",
        "an unsafe module parameter was set, or a driver was used in a mode marked unsafe",
        "writing a module_param_unsafe parameter, or vfio no-IOMMU mode",
        "sometimes: undo the option and see whether the problem stays",
    ),
    TaintFlag(
        7,
        "D",
        "DIE",
        "the kernel has oopsed or hit a BUG",
        "an earlier crash in this boot",
        "every oops, at its end",
        "yes: read the first oops of this boot, later ones are often only its echo",
    ),
    TaintFlag(
        8,
        "A",
        "OVERRIDDEN_ACPI_TABLE",
        "an ACPI table was replaced by the administrator",
        "a DSDT or SSDT override in the initramfs or configfs",
        "ACPI table upgrade at boot or at run time",
        "only for power, device discovery and platform problems",
    ),
    TaintFlag(
        9,
        "W",
        "WARN",
        "the kernel printed a WARNING",
        "an assertion (WARN_ON) failed; the kernel went on",
        "every WARN, unless it names another flag",
        "often: the first WARNING may be the cause of what follows",
    ),
    TaintFlag(
        10,
        "C",
        "CRAP",
        "a staging driver was loaded",
        "a driver of drivers/staging, of quality below the kernel's standard",
        "loading a module with staging= in its modinfo",
        "only when that driver is involved",
        module_carried=True,
    ),
    TaintFlag(
        11,
        "I",
        "FIRMWARE_WORKAROUND",
        "the kernel works around a severe firmware bug",
        "wrong DMAR, MTRR or interrupt-remapping tables of the BIOS",
        "platform code that meets such tables",
        "only for platform problems: try a firmware update",
    ),
    TaintFlag(
        12,
        "O",
        "OOT_MODULE",
        "a module built outside the kernel tree was loaded",
        "DKMS, a vendor package, your own module",
        "loading a module without intree= in its modinfo",
        "normal for your own modules; distributions may ask to reproduce without it",
        module_carried=True,
    ),
    TaintFlag(
        13,
        "E",
        "UNSIGNED_MODULE",
        "a module without a valid signature was loaded",
        "a locally built module, or one signed with a key this kernel does not trust",
        "loading such a module on a kernel with CONFIG_MODULE_SIG that does not enforce signatures",
        "harmless for debugging; with Secure Boot the load would be refused instead",
        module_carried=True,
    ),
    TaintFlag(
        14,
        "L",
        "SOFTLOCKUP",
        "a CPU did not schedule for too long",
        "an endless loop or a long section with preemption off",
        "the watchdog's soft lockup report",
        "yes: the report names the loop; in virtual machines a paused host does it too",
    ),
    TaintFlag(
        15,
        "K",
        "LIVEPATCH",
        "kernel code was replaced by a live patch",
        "kpatch, kgraft or a distribution's live patch service",
        "loading a module with livepatch= in its modinfo",
        "addresses and sources may differ from the plain kernel's",
        module_carried=True,
    ),
    TaintFlag(
        16,
        "X",
        "AUX",
        "a mark of the distribution's own",
        "for example a module or feature that the distributor does not support",
        "distribution patches",
        "ask the distributor; upstream uses it rarely",
        module_carried=True,
    ),
    TaintFlag(
        17,
        "T",
        "RANDSTRUCT",
        "structure layouts were randomised when the kernel was built",
        "CONFIG_RANDSTRUCT",
        "the build; set from boot",
        "only for tools that assume layouts",
        module_carried=True,
    ),
    TaintFlag(
        18,
        "N",
        "TEST",
        "an in-kernel test was run",
        'KUnit or a module with MODULE_INFO(test, "Y")',
        "loading a test module or running KUnit (6.0 and later)",
        "no on a test machine; a production kernel should not have it",
        module_carried=True,
    ),
    TaintFlag(
        19,
        "J",
        "FWCTL",
        "user space changed a device through fwctl's debug interface",
        "a vendor tool that writes device firmware state",
        "fwctl calls with a mutating debug scope (6.15 and later)",
        "when that device is involved: it may behave in undocumented ways",
        module_carried=True,
    ),
)

BY_LETTER: dict[str, TaintFlag] = {flag.letter: flag for flag in FLAGS}
FLAGS_IN_6_1 = 19
"""Columns of the text of a 6.1 kernel; the length of the image's ``taint_flags`` table says it for others."""

_VERBOSE = re.compile(r"\[(\w)\]=(\w+)")


def decode(value: int) -> tuple[TaintFlag, ...]:
    """The known flags set in ``value``, lowest bit first; see ``unknown_bits`` for the rest."""
    return tuple(flag for flag in FLAGS if value >> flag.bit & 1)


def unknown_bits(value: int) -> tuple[int, ...]:
    """Bits set in ``value`` that no kernel known here defines."""
    return tuple(bit for bit in range(len(FLAGS), value.bit_length()) if value >> bit & 1)


def letters(value: int) -> str:
    """The set flags' letters without blanks (``OE``), as ``/sys/module/X/taint`` and ``/proc/modules`` show them."""
    return "".join(flag.letter for flag in decode(value))


def columns(value: int, count: int = FLAGS_IN_6_1) -> str:
    """The padded text after ``Tainted:``, one column a flag: ``G           OE     ``."""
    return "".join(flag.letter if value >> flag.bit & 1 else flag.clear for flag in FLAGS[:count])


def tainted_text(value: int, count: int = FLAGS_IN_6_1) -> str:
    """What ``print_tainted()`` answers: ``Tainted: G …`` in ``count`` columns, or ``Not tainted``."""
    return f"Tainted: {columns(value, count)}" if value else "Not tainted"


def verbose_text(value: int) -> str:
    """The second line that newer kernels (6.12 among them) add: ``Tainted: [O]=OOT_MODULE, [E]=UNSIGNED_MODULE``."""
    return "Tainted: " + ", ".join(f"[{flag.letter}]={flag.name}" for flag in decode(value))


def parse_letters(text: str) -> int:
    """The value behind letters, padded or not (``G           OE``, ``OE+``). Raises ValueError at an unknown letter."""
    value = 0
    for letter in text:
        if letter in " G+-()":
            continue
        if letter not in BY_LETTER:
            raise ValueError(f"no taint flag has the letter {letter!r}")
        value |= BY_LETTER[letter].mask
    return value


def parse_text(text: str) -> int | None:
    """The value that a log line states: ``… Tainted: G OE …``, ``Tainted: [O]=OOT_MODULE``, ``Not tainted``; else None.

    The columns end where the release begins, so single letters are read until the first word that is none.
    """
    if "Not tainted" in text:
        return 0
    _, found, rest = text.partition("Tainted:")
    if not found:
        return None
    pairs = _VERBOSE.findall(rest)
    if pairs:
        return parse_letters("".join(letter for letter, _ in pairs if letter in BY_LETTER))
    value = 0
    for word in rest.split():
        if any(letter != "G" and letter not in BY_LETTER for letter in word):
            break
        value |= parse_letters(word)
    return value

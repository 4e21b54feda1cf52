"""A real kernel in QEMU that is given lines of a shell: what each of them said, and what the kernel logged meanwhile.

The second opinion of tests about what modules do. Needs qemu-system-x86_64 and a static busybox (Debian's package
busybox-static). The processor is software; the machine has one CPU and no devices beyond QEMU's own.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from record_golden import cpio

QEMU = "qemu-system-x86_64"
_BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
_PT_INTERP = 3
_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
mount -t configfs config /sys/kernel/config
mount -t tracefs trace /sys/kernel/tracing
exec </dev/null >/dev/ttyS1 2>&1
dmesg -c >/dev/null
for step in /steps/*; do
    echo "@step"
    sh $step
    echo "@status $?"
    sleep ${SETTLE:-0}
    dmesg -r -c | sed 's/^/@log /'
done
echo "@end"
poweroff -f
"""
_LOG = re.compile(r"@log (?:<(\d+)>)?(?:\[ *[\d.]+\] )?(.*)")


@dataclass(frozen=True, slots=True)
class Said:
    """What one step gave: its output, its exit status (None where the machine stopped in it), the kernel's log."""

    output: tuple[str, ...]
    status: int | None
    log: tuple[str, ...]


def static_busybox() -> Path | None:
    """A busybox that needs no libraries."""
    return next((place for place in map(Path, _BUSYBOX) if place.exists() and not _asks_for_a_loader(place)), None)


def _asks_for_a_loader(program: Path) -> bool:
    """Whether a 64-bit ELF file has a PT_INTERP segment."""
    data = program.read_bytes()
    at, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    return any(struct.unpack_from("<I", data, at + number * size)[0] == _PT_INTERP for number in range(count))


def lacks() -> str:
    """What this machine lacks for a real kernel; empty where it lacks nothing."""
    if shutil.which(QEMU) is None:
        return QEMU
    return "" if static_busybox() else "a static busybox"


def run_steps(
    vmlinuz: Path, steps: Sequence[str], files: Mapping[str, bytes], *, append: str = "", seconds: int = 300
) -> list[Said]:
    """Boot, run each step (lines of a shell), power off. ``files`` are placed before: absolute path to content.

    Fewer answers than steps: the machine stopped, or ``seconds`` were over.
    """
    busybox = static_busybox()
    assert busybox is not None
    folders = ("proc", "sys", "dev", "tmp", "bin", "sbin", "usr", "usr/sbin", "lib", "etc", "steps")
    tree: dict[str, bytes | None] = dict.fromkeys(folders)
    for path in files:
        parents = Path(path.lstrip("/")).parents
        tree |= {str(parent): None for parent in reversed(parents) if str(parent) != "."}
    tree |= {"bin/busybox": busybox.read_bytes(), "init": _INIT.encode()}
    tree |= {path.lstrip("/"): content for path, content in files.items()}
    tree |= {f"steps/{number:05}": step.encode() + b"\n" for number, step in enumerate(steps)}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "initramfs").write_bytes(cpio(tree))
        line = f"console=ttyS0 quiet panic=-1 oops=continue log_buf_len=16M {append}"
        command = [
            QEMU, "-accel", "tcg", "-cpu", "qemu64", "-smp", "1", "-m", "1024", "-no-reboot", "-display", "none",
            "-kernel", str(vmlinuz), "-initrd", f"{folder}/initramfs", "-append", line,
            "-serial", f"file:{folder}/console", "-serial", f"file:{folder}/said",
        ]  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):  # what it had said until then is the answer
            subprocess.run(command, timeout=seconds, check=True, capture_output=True)
        text = (Path(folder) / "said").read_text(errors="replace")
    return [_parse(block) for block in text.replace("\r", "").split("@step\n")[1:]]


def _parse(block: str) -> Said:
    output: list[str] = []
    log: list[str] = []
    status = None
    for line in block.splitlines():
        found = _LOG.fullmatch(line)
        if found:
            log.append(found[2])
        elif line.startswith("@status "):
            status = int(line.removeprefix("@status "))
        elif line != "@end":
            output.append(line)
    return Said(tuple(output), status, tuple(log))

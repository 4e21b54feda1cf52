"""What ``kobox explain`` foretells is what the loader then answers: for the examples, for broken ones, and for the
distribution's own modules."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from builders import VERMAGIC, KoBuilder
from kobox.box import Kernel, boot
from kobox.errors import GuestError
from kobox.image import Image
from kobox.ko import decompress, read_module, split_signature
from kobox.verdict.host import Host, policy_of_boot
from kobox.verdict.records import Subject, Verdict
from kobox.verdict.session import Session
from paths import EXAMPLES
from signing import ec_identity, signed

pytestmark = pytest.mark.image

ADDRESS = re.compile(r"0x[0-9a-f]{6,16}|\b[0-9a-f]{8,16}\b")
EVERY = 20
"""Of the distribution's modules one in so many is tried."""
COMM = "kload"


class Answer(NamedTuple):
    """What the kernel did. ``reached``: as far as the module's own init, which is not run; ``died``: its task was
    killed."""

    result: int
    log: list[tuple[int, str]]
    reached: bool
    died: bool


@pytest.fixture(scope="module")
def kernel(debian_root: Path) -> Iterator[Kernel]:
    with boot(debian_root, comm=COMM, check_memory=False) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture(scope="module")
def host(debian_image: Image) -> Host:
    return Host(debian_image, "here", policy_of_boot(debian_image, ""))


def ask(kernel: Kernel, data: bytes, parameters: str = "", before: tuple[bytes, ...] = ()) -> Answer:
    """Load into a fresh kernel, after ``before``."""
    room = kernel.modules_room
    try:
        for other in before:
            kernel.init_module(other, "")
        mark = kernel.booted.log.mark()
        operation = room.start_load(data, parameters.encode(), 0)
        died = reached = False
        try:
            while not (operation.done or operation.died or reached):
                room.step(operation, 1_000_000_000)
                reached = any(step.name == "sysfs" for step in operation.trace)
        except GuestError:
            died = True
        said = [(record.level, ADDRESS.sub("ADDR", record.text)) for record in kernel.booted.log.since(mark)]
        return Answer(operation.result, said, reached, died or operation.died)
    finally:
        kernel.reset()


def foretell(host: Host, data: bytes, parameters: str = "", before: tuple[bytes, ...] = ()) -> Verdict:
    session = Session(host, comm=COMM)
    for other in before:
        session.load(Subject("before.ko", other), raw=True)
    return session.load(Subject("asked.ko", data), parameters, raw=True)


def disagreement(verdict: Verdict, answer: Answer) -> str:
    """Empty when both say the same. What the module itself says and answers once it runs is its own."""
    said = [(int(line.level), ADDRESS.sub("ADDR", line.text)) for line in verdict.log]
    if answer.died:
        return "" if verdict.loads or verdict.errno == 0 else f"died, not {verdict.reasons[0].rule}"
    if verdict.loads:
        same = answer.reached and answer.log[: len(said)] == said
    else:
        met = [line for line in answer.log if line in said] if (4, "Call Trace:") in answer.log else answer.log
        same = not answer.reached and answer.result == -verdict.errno and met == said
    found = [(reason.rule, reason.errno) for reason in verdict.reasons]
    return "" if same else f"foretold {verdict.errno} {found} {said}; met {answer}"


def broken_in_many_ways() -> dict[str, Callable[[], tuple[bytes, str]]]:
    """Modules that a kernel refuses, each for another reason: bytes and parameters."""
    hello = (EXAMPLES / "hello.ko").read_bytes()

    def patched(offset: int, form: str, value: int) -> bytes:
        data = bytearray(hello)
        struct.pack_into(form, data, offset, value)
        return bytes(data)

    def replaced(old: bytes, new: bytes) -> bytes:
        assert old in hello
        assert len(old) == len(new)
        return hello.replace(old, new)

    def made(name: str = "made", **modinfo: str) -> KoBuilder:
        return KoBuilder(name).module(**modinfo)

    release = VERMAGIC.partition(" ")[0].encode()
    unversioned = replaced(b"__versions", b"__xersions")
    return {
        "type": lambda: (patched(16, "<H", 2), ""),
        "machine": lambda: (patched(18, "<H", 183), ""),
        "section size": lambda: (patched(58, "<H", 40), ""),
        "names index": lambda: (patched(62, "<H", 0xFFF0), ""),
        "text": lambda: (b"this is no module at all, but it is longer than a header of an ELF file is", ""),
        "cut": lambda: (hello[: len(hello) // 3], ""),
        "short": lambda: (hello[:40], ""),
        "release without versions": lambda: (unversioned.replace(release, b"7" + release[1:]), ""),
        "no versions": lambda: (unversioned, ""),
        "words of the vermagic": lambda: (replaced(b"SMP preempt ", b"UP  preempt "), ""),
        "changed layout": lambda: (replaced(b"module_layout\0", b"module_layoux\0"), ""),
        "changed symbol": lambda: (replaced(b"_printk\0", b"_printx\0"), ""),
        "licence": lambda: (replaced(b"license=", b"licence="), ""),
        "not an int": lambda: (hello, "my_param=seven"),
        "too large": lambda: (hello, "my_param=99999999999"),
        "two errors": lambda: (hello, "my_param=99999999999 my_param=x"),
        "unknown parameter": lambda: (hello, "nothing=1"),
        "after a double dash": lambda: (hello, "my_param=3 -- rest=1"),
        "unknown key": lambda: (signed(hello, ec_identity()), ""),
        "lying trailer": lambda: (made().signature(sig_len=1 << 30).build(), ""),
        "zeros of the trailer": lambda: (made().signature(algo=1).build(), ""),
        "another kind of signature": lambda: (made().signature(id_type=1).build(), ""),
        "unknown symbols": lambda: (made().undefined("nowhere").undefined("elsewhere").build(), ""),
        "weak symbol": lambda: (made().undefined("nowhere", weak=True).build(), ""),
        "proprietary": lambda: (made(license="Proprietary").undefined("init_mm").undefined("kobject_put").build(), ""),
        "namespace": lambda: (made().undefined("dma_buf_get").build(), ""),
        "writable code": lambda: (made().section(".x", b"x", flags=7).build(), ""),
        "exports a kernel's name": lambda: (made().export("kfree").build(), ""),
        "name of built-in code": lambda: (made("kernel").build(), ""),
        "per-CPU": lambda: (made().section(".data..percpu", bytes(20000), flags=3, align=64).build(), ""),
        "huge": lambda: (made().section(".bss", type=8, flags=3, size=0x7F000000).build(), ""),
        "common": lambda: (made().symbol("shared", 0xFFF2).build(), ""),
        "odd relocation": lambda: (made().data(bytes(8)).reloc(".data", 0, 99, "init_module").build(), ""),
        "relocated twice": lambda: (made().data(b"\1" * 8).reloc(".data", 0, 1, "init_module").build(), ""),
        "two parameters of a name": lambda: (
            made().version("module_layout", 0x9060323F).param("a").param("b").build().replace(b"b\0", b"a\0"), ""),
        "livepatch": lambda: (made(livepatch="Y").build(), ""),
        "staging": lambda: (made(staging="Y").build(), ""),
    }  # fmt: skip


@pytest.mark.parametrize("case", sorted(broken_in_many_ways()))
def test_a_broken_module_is_answered_as_foretold(case: str, kernel: Kernel, host: Host) -> None:
    data, parameters = broken_in_many_ways()[case]()
    assert disagreement(foretell(host, data, parameters), ask(kernel, data, parameters)) == ""


def test_every_example_is_answered_as_foretold(kernel: Kernel, host: Host) -> None:
    found = {}
    for path in sorted(EXAMPLES.rglob("*.ko")):
        before = tuple((EXAMPLES / f"{name}.ko").read_bytes() for name in read_module(path).depends)
        data = path.read_bytes()
        for others in {before, ()}:
            answer = ask(kernel, data, before=others)
            found[f"{path.name} {len(others)}"] = disagreement(foretell(host, data, before=others), answer)
    assert len(found) > 40
    assert {name: said for name, said in found.items() if said} == {}


def test_modules_of_the_distribution_are_answered_as_foretold(kernel: Kernel, host: Host, debian_root: Path) -> None:
    """Alone, and with one byte changed: then the signature does not match any more."""
    found = {}
    refused = 0
    for path in sorted((debian_root / "lib/modules" / host.image.release).rglob("*.ko"))[::EVERY]:
        data = bytes(decompress(path.read_bytes(), path.name))
        changed = bytearray(data)
        changed[len(data) // 2] ^= 0x10
        for what, content in (("", data), (" changed", bytes(changed))):
            verdict = foretell(host, content)
            refused += not verdict.loads
            found[path.name + what] = disagreement(verdict, ask(kernel, content))
    assert refused > len(found) // 2
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.parametrize("cmdline", ["module.sig_enforce=1 module_blacklist=hello,dummy", "lockdown=integrity"])
def test_the_command_line_counts_as_it_does_in_the_kernel(cmdline: str, debian_root: Path, debian_image: Image) -> None:
    host = Host(debian_image, "here", policy_of_boot(debian_image, cmdline), cmdline=cmdline)
    hello = (EXAMPLES / "hello.ko").read_bytes()
    (own,) = (debian_root / "lib/modules" / debian_image.release).rglob("dummy.ko")
    cases = {
        "unsigned": hello,
        "unknown key": signed(hello, ec_identity()),
        "the distribution's": own.read_bytes(),
        "changed": own.read_bytes().replace(b"license=GPL", b"license=GPX"),
        "text": b"no module" * 20,
    }
    with boot(debian_root, append=cmdline, comm=COMM, check_memory=False) as kernel:
        kernel.mark_pristine()
        found = {name: disagreement(foretell(host, data), ask(kernel, data)) for name, data in cases.items()}
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.full
def test_the_next_debian_answers_as_foretold_too(trixie_root: Path, trixie_image: Image) -> None:
    """Its own modules: as they are, with a byte changed, unsigned with a byte changed; and those of the one before."""
    host = Host(trixie_image, "next", policy_of_boot(trixie_image, ""))
    found = {}
    with boot(trixie_root, comm=COMM, check_memory=False) as kernel:
        kernel.mark_pristine()
        cases = {path.name: path.read_bytes() for path in sorted(EXAMPLES.glob("*.ko"))}
        for path in sorted((trixie_root / "lib/modules" / trixie_image.release).rglob("*.ko*"))[:: EVERY * 4]:
            data = bytes(decompress(path.read_bytes(), path.name))
            unsigned = bytearray(split_signature(data)[0])
            unsigned[len(unsigned) // 3] ^= 4
            cases |= {path.name: data, f"{path.name} unsigned": bytes(unsigned), f"{path.name} changed": data + b"x"}
        for name, data in cases.items():
            found[name] = disagreement(foretell(host, data), ask(kernel, data))
        # this kernel makes more of them, for built-in drivers
        assert host.objects < {entry.name for entry in kernel.ls("/sys/module")}
    assert {name: said for name, said in found.items() if said} == {}


def test_names_below_sys_module_are_known_without_booting(kernel: Kernel, host: Host) -> None:
    assert host.objects == {entry.name for entry in kernel.ls("/sys/module")}

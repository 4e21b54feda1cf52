"""What a kernel image adds to a report: code and arguments of its own functions, its own modules by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from builders import KoBuilder
from image_builders import BtfBuilder
from kobox.debug.kernel_functions import ImageFunctions
from kobox.debug.parse import parse_log
from kobox.debug.records import Symbol
from kobox.debug.report import make_report, render
from kobox.debug.sources import Sources
from kobox.image.btf import Btf

START = 0xFFFFFFFF81000100
CODE = bytes.fromhex("4889fb 488b4308 c3".replace(" ", ""))  # mov %rdi,%rbx; mov 8(%rbx),%rax; ret


def kernel_types() -> BtfBuilder:
    build = BtfBuilder()
    number = build.int("long", 8, signed=True)
    node = build.struct("node", 16, [("key", number, 0), ("next", number, 64)])
    build.func("step", build.proto(number, [("node", build.ptr(node))]))
    return build


@dataclass
class FakeImage:
    """One function ``step`` of 9 bytes."""

    modules: Path | None = None
    release: str = "6.1.0-test"
    btf: Btf = field(default_factory=lambda: Btf(kernel_types().build()))

    @property
    def symbols(self):
        at = {START: SimpleNamespace(name="step", offset=0, size=len(CODE))}.get
        return SimpleNamespace(all=lambda name: (START,) if name == "step" else (), at=at)

    def read(self, address: int, size: int) -> bytes:
        return CODE.ljust(64, b"\x90")[address - START :][:size]


def log(where: str, release: str = "6.1.0-test") -> str:
    return (
        "BUG: kernel NULL pointer dereference, address: 0000000000000008\nOops: 0000 [#1] SMP\n"
        f"CPU: 0 PID: 1 Comm: a Not tainted {release}\nRIP: 0010:{where}\n"
        "Code: Unable to access opcode bytes at 0xffff.\n"
    )


def report(text: str, image: FakeImage):
    (oops,) = parse_log(text)
    return make_report(oops, Sources({}, (), ImageFunctions(image)))


def test_code_and_argument_of_a_kernel_function_come_from_the_image():
    text = render(report(log("step+0x3/0x8"), FakeImage()))
    assert "=> step+0x3" in text
    assert "`node` (struct node *, likely argument 1), member `next` at offset 0x8: the pointer is NULL" in text


def test_a_function_of_another_size_is_not_trusted():
    found = report(log("step+0x3/0x99"), FakeImage())
    assert (found.access, found.oops.instructions) == (None, ())


def test_a_report_of_another_release_is_noted():
    notes = report(log("step+0x3/0x8", "5.10.0"), FakeImage()).notes
    assert notes == ("this is a report of 5.10.0, the image given is 6.1.0-test",)


def test_a_module_of_the_image_is_found_by_name_with_its_own_types(tmp_path: Path):
    base = kernel_types()
    split = BtfBuilder(base)
    number = split.int("int", 4)
    page = split.struct("page_of", 16, [("a", number, 0), ("b", number, 64)])
    split.func("turn", split.proto(number, [("page", split.ptr(page))]))
    module = KoBuilder("book").module().text(CODE).symbol("turn", ".text", 0, size=len(CODE), type=2)
    (tmp_path / "kernel/lib").mkdir(parents=True)
    module.section(".BTF", split.build()).write(tmp_path / "kernel/lib/book.ko")
    found = report(log("turn+0x3/0x8 [book]"), FakeImage(modules=tmp_path))
    assert (found.access.variable, found.access.member, found.access.argument) == ("page", "b", 1)
    assert found.notes == ()


def test_a_name_with_an_underscore_finds_a_file_with_a_dash(tmp_path: Path):
    KoBuilder("two-words").module().text(CODE).write(tmp_path / "two-words.ko")
    functions = ImageFunctions(FakeImage(modules=tmp_path))
    assert functions.module("two_words") is not None
    assert functions.module("three_words") is None


@pytest.mark.image
def test_a_function_of_the_distributions_kernel_names_its_argument(debian_image):
    symbol = debian_image.symbols.symbol("kobject_get")
    located = debian_image.symbols.at(symbol.address)
    functions = ImageFunctions(debian_image)
    found = functions.argument(Symbol("kobject_get", 4, located.size), (None, None), "rdi", 0, 0)
    assert (found.variable, found.type_name, found.argument) == ("kobj", "struct kobject *", 1)

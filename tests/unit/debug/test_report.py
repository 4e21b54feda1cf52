"""The report for people and for programs, with the module that crashed built a moment ago."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from builders import KoBuilder
from kobox.debug.parse import parse_log, parse_symbols
from kobox.debug.report import as_data, make_report, render
from kobox.debug.sources import Sources
from kobox.elf import parse
from needs import need_program

SOURCE = """\
struct page_of { char text[24]; struct page_of *next; };
extern int _printk(const char *, ...);

__attribute__((noinline)) struct page_of *turn(struct page_of *page)
{
    return page->next;
}

struct page_of *book_init(struct page_of *first)
{
    _printk("reading");
    return turn(turn(first)) + 1;
}
"""
ZEROS = "0" * 16


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    need_program("gcc")
    folder = tmp_path_factory.mktemp("book")
    (folder / "book.c").write_text(SOURCE)
    flags = ["-g", "-O2", "-fno-pie", "-mcmodel=kernel", "-fcf-protection=none", "-fno-optimize-sibling-calls"]
    subprocess.run(["gcc", *flags, "-c", "book.c", "-o", "book.ko"], cwd=folder, check=True)
    return folder / "book.ko"


def log(code: str) -> str:
    """A NULL dereference in ``turn``, called from ``book_init``."""
    registers = "\n".join(
        " ".join(f"{name}: {ZEROS}" for name in names.split())
        for names in ("RAX RBX RCX", "RDX RSI RDI", "RBP R08 R09", "R10 R11 R12", "R13 R14 R15")
    )
    return f"""\
BUG: kernel NULL pointer dereference, address: 0000000000000018
#PF: error_code(0x0000) - not-present page
Oops: 0000 [#1] PREEMPT SMP NOPTI
CPU: 0 PID: 99 Comm: insmod Tainted: G           OE      6.1.0-56-amd64 #1  Debian 6.1.192-2
RIP: 0010:turn+0x0/0x5 [book]
{code}
RSP: 0018:ffffc900003bbc08 EFLAGS: 00000246
{registers}
Call Trace:
 <TASK>
 book_init+0xf/0x1000 [book]
 ? stale+0x1/0x2
 do_one_initcall+0x59/0x220
RIP: 0033:0x43fa79
RSP: 002b:00007ffc40000000 EFLAGS: 00000246 ORIG_RAX: 0000000000000139
{registers}
 </TASK>
Modules linked in: book(OE+)
---[ end trace {ZEROS} ]---
"""


READABLE = "Code: cc cc <48> 8b 47 18 c3"


def report_of(text: str, *paths: Path):
    (oops,) = parse_log(text)
    return make_report(oops, Sources.of_files(paths) if paths else None)


def test_the_report_names_file_line_variable_and_member(book: Path):
    text = render(report_of(log(READABLE), book))
    assert "turn+0x0/0x5 [book] (book.c:6)" in text
    assert re.search(r"> 6 \|     return page->next;", text)
    assert "`page` (struct page_of *), member `next` at offset 0x18: the pointer is NULL" in text
    assert re.search(r"book_init\+0xf/0x1000 \[book\]  \(book\.c:1[12]\)", text)
    assert "in system call 313 (finit_module)" in text
    assert "user space at 0x43fa79" in text


def test_code_that_the_log_lacks_is_taken_from_the_module_with_its_symbols_named(book: Path):
    text = render(report_of(log("Code: Unable to access opcode bytes at 0xffffffffbfffffd6."), book))
    assert re.search(r"=> turn\+0x0 +48 8b 47 18 +movq 0x18\(%rdi\), %rax", text)


def test_a_call_in_the_modules_own_bytes_names_its_target(book: Path):
    log_in_init = log("Code: Unable to access opcode bytes at 0xffff.").replace("turn+0x0/0x5", "book_init+0x0/0x1000")
    assert any("# _printk" in one.text for one in report_of(log_in_init, book).oops.instructions)


def test_without_a_module_file_the_report_is_still_decoded_and_explained():
    text = render(report_of(log(READABLE)))
    assert "read access at offset 0x18 from a NULL pointer" in text
    assert "=> turn+0x0" in text
    assert "book.c" not in text


def test_a_module_without_debug_data_is_told_how_to_build_it(book: Path, tmp_path: Path):
    need_program("objcopy")
    subprocess.run(["objcopy", "-g", book, tmp_path / "book.ko"], check=True)
    report = report_of(log(READABLE), tmp_path / "book.ko")
    assert any("no debug data: build it with -g" in note for note in report.notes)


def test_another_build_of_the_module_is_suspected(book: Path):
    report = report_of(log(READABLE).replace("turn+0x0/0x5", "gone+0x0/0x5"), book)
    assert any("has no function gone: is it the build that ran?" in note for note in report.notes)


def test_a_function_that_is_too_short_is_suspected_too(book: Path):
    report = report_of(log(READABLE).replace("turn+0x0/0x5", "turn+0x500/0x600"), book)
    assert any("turn is shorter than 0x500" in note for note in report.notes)


def test_a_place_in_the_module_counts_from_its_first_code(book: Path):
    (places,) = parse_symbols("book+0x0")
    (frame,) = make_report(places, Sources.of_files([book])).oops.frames
    assert [(line.file, line.line) for line in frame.source] == [("book.c", 6)]


def test_the_json_form_holds_what_the_text_says(book: Path):
    data = json.loads(json.dumps(as_data(report_of(log(READABLE), book))))
    assert data["kind"] == "null-dereference"
    assert data["where"]["source"] == [{"file": "book.c", "line": 6, "function": "turn"}]
    assert data["access"]["member"] == "next"
    assert data["registers"]["rdi"] == "0x0"
    assert data["taint"]["letters"] == "OE"
    assert [item["type"] for item in data["trace"]] == ["stack", "frame", "frame", "frame", "context", "stack"]
    assert [one["faulting"] for one in data["instructions"]].count(True) == 1


def test_every_key_of_the_json_form_is_documented(book: Path):
    page = (Path(__file__).parents[3] / "docs/oops.md").read_text()
    assert [key for key in as_data(report_of(log(READABLE), book)) if f"`{key}`" not in page] == []


def test_two_functions_of_one_name_are_told(tmp_path: Path):
    need_program("gcc")
    for name in "ab":
        (tmp_path / f"{name}.c").write_text(
            f"static __attribute__((used, noinline)) int step(int x) {{ return x; }}\nint {name};\n"
        )
        subprocess.run(["gcc", "-g", "-c", f"{name}.c"], cwd=tmp_path, check=True)
    subprocess.run(["ld", "-r", "a.o", "b.o", "-o", "two.ko"], cwd=tmp_path, check=True)
    report = report_of(log(READABLE).replace("turn+0x0/0x5 [book]", "step+0x0 [two]"), tmp_path / "two.ko")
    assert any("2 functions called step" in note for note in report.notes)


def test_file_names_with_a_dash_match_module_names_with_an_underscore(tmp_path: Path):
    elf = parse(KoBuilder("a_b").module().text(bytes(16)).build(), "a-b.ko")
    path = tmp_path / "a-b.ko"
    path.write_bytes(bytes(elf.data))
    assert "a_b" in Sources.of_files([path]).modules


def test_an_excerpt_of_a_file_that_is_not_at_hand_is_empty(book: Path):
    sources = Sources.of_files([book])
    assert sources.excerpt(parse_source_line()) == []


def parse_source_line():
    from kobox.debug.records import SourceLine

    return SourceLine("nowhere.c", 3)

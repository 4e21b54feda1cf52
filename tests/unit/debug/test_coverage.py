"""Counts of lines over tests and processes, and the reports made of them, read by the tools that they are for."""

from __future__ import annotations

import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path

from builders import KoBuilder
from kobox.debug.coverage import Collected, FileCoverage
from kobox.debug.coverage.html import write_html
from kobox.debug.coverage.lcov import lcov_text
from kobox.debug.coverage.table import percent, table_lines
from kobox.kernel.coverage import ModuleRun
from needs import need_program

SOURCE = "int f(void)\n{\n\treturn 1 < 2 && 3;\n}\nint g(void)\n{\n\treturn 0;\n}\n"


def files(folder: Path) -> dict[str, FileCoverage]:
    (folder / "a.c").write_text(SOURCE)
    lines = {1: 2, 3: 2, 4: 1, 5: 0, 7: 0, 8: 0}
    return {str(folder / "a.c"): FileCoverage(lines, {"f": (1, 2), "g": (5, 0)})}


def test_lines_that_did_not_run_are_told_as_ranges() -> None:
    assert FileCoverage({1: 0, 2: 0, 5: 1, 7: 0, 9: 0, 10: 3, 12: 0}).missing() == [(1, 2), (7, 9), (12, 12)]


def test_only_everything_is_a_hundred_percent() -> None:
    assert percent(1000, 999) == 99.0
    assert percent(3, 3) == percent(0, 0) == 100.0


def test_counts_of_processes_add_up_and_survive_json(tmp_path: Path) -> None:
    one, other = Collected(), Collected()
    one.files, one.modules = files(tmp_path), {"a"}
    for _ in range(2):
        other.merge(json.loads(json.dumps(one.as_data())))
    (found,) = other.files.values()
    assert found.lines == {1: 4, 3: 4, 4: 2, 5: 0, 7: 0, 8: 0}
    assert found.functions == {"f": (1, 4), "g": (5, 0)}
    assert other.modules == {"a"}


def test_damaged_debug_data_is_told_and_stops_nothing() -> None:
    builder = (
        KoBuilder("odd").text().section(".debug_info", data=b"\x40" * 64).section(".debug_line", data=b"\x40" * 64)
    )
    found = Collected()
    found.add([ModuleRun("odd", "key", builder.build(), {1: frozenset({(0, 4)})})])
    assert (found.modules, found.files, found.without_lines) == ({"odd"}, {}, set())
    assert found.damaged["odd"].startswith("odd: ")


def test_the_table_names_what_is_missing(tmp_path: Path) -> None:
    head, row, total = table_lines(files(tmp_path), tmp_path)
    assert head.split() == ["file", "lines", "missed", "run", "not", "run"]
    assert row.split() == ["a.c", "6", "3", "50%", "5-8"]
    assert total.split() == ["total", "6", "3", "50%"]


def test_lcov_reads_the_tracefile(tmp_path: Path) -> None:
    need_program("lcov", "genhtml")
    trace = tmp_path / "x.lcov"
    trace.write_text(lcov_text(files(tmp_path)))
    listed = subprocess.run(["lcov", "--list", trace], capture_output=True, text=True, check=True).stdout
    (row,) = (line for line in listed.splitlines() if line.startswith("a.c"))
    assert row.replace("|", " ").split()[:5] == ["a.c", "50.0%", "6", "50.0%", "2"]
    made = subprocess.run(
        ["genhtml", "-o", tmp_path / "made", trace], capture_output=True, text=True, check=True
    ).stdout
    assert "50.0% (3 of 6 lines)" in made
    assert "50.0% (1 of 2 functions)" in made


class _Marks(HTMLParser):
    """Classes of the lines by their ids."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, str | None] = {}
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "span" and "id" in found:
            self.lines[str(found["id"])] = found.get("class")
        if tag == "a":
            self.links.append(found.get("href"))


def test_the_pages_mark_each_line_and_escape_its_text(tmp_path: Path) -> None:
    index = write_html(files(tmp_path), tmp_path / "html", tmp_path)
    listed, page = _Marks(), _Marks()
    listed.feed(index.read_text())
    assert listed.links == ["source-1.html"]
    text = (tmp_path / "html/source-1.html").read_text()
    page.feed(text)
    run, miss = "run", "miss"
    assert list(page.lines.values()) == [run, None, run, run, miss, None, miss, miss]
    assert "return 1 &lt; 2 &amp;&amp; 3;" in text


def test_a_source_that_is_gone_is_said(tmp_path: Path) -> None:
    write_html({"/no/such.c": FileCoverage({3: 1})}, tmp_path, tmp_path)
    assert "The source is not there: No such file" in (tmp_path / "source-1.html").read_text()

"""A sweep as text, JUnit and HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree

from kobox.sweep.junit import junit
from kobox.sweep.page import page
from kobox.sweep.records import ModuleResult, SweepReport
from kobox.sweep.text import line_of, summary

MODULES = (
    ModuleResult("good", "kernel/a/good.ko", load=0, unload=0, registered={"net": ("<b>0",)}, ms=12.0),
    ModuleResult("shy", "kernel/a/shy.ko", load=19, log=((6, "shy: no \x01 device & <none>"),)),
    ModuleResult("bad", "kernel/b/bad.ko", oops="BUG: bad <address>", log=((1, "BUG: bad <address>"),)),
    ModuleResult("slow", "kernel/b/slow.ko", hang=True, reason="no result within its virtual time"),
    ModuleResult("odd", "kernel/b/odd.ko", error="kernel 7 has no symbol x", missing=("x",)),
    ModuleResult("messy", "kernel/b/messy.ko", load=0, unload=0, leftover={"proc": ("left",)}, warn=True),
)
REPORT = SweepReport("6.1", "qemu64", "/tree", 1, 2.5, MODULES)


def test_each_module_is_told_in_one_line() -> None:
    assert [line_of(module) for module in MODULES] == [
        "good: loaded, unloaded",
        "shy: refused: ENODEV",
        "bad: crashed: BUG: bad <address>",
        "slow: hung: no result within its virtual time",
        "odd: kobox error: kernel 7 has no symbol x",
        "messy: loaded, unloaded, left 1: left, warned",
    ]


def test_a_long_list_of_unknown_symbols_is_cut_in_the_line() -> None:
    reason = f"unknown symbols: {', '.join(f'symbol_{number}' for number in range(50))}"
    line = line_of(ModuleResult("m", "m.ko", load=2, reason=reason))
    assert line.endswith("symbol_7 and 42 more)")


def test_the_summary_names_what_needs_a_look() -> None:
    text = "\n".join(summary(REPORT))
    assert "6 modules in 2.5 s (1 process)" in text
    assert "load:   3 not reached, 2 0, 1 ENODEV" in text
    assert "crashed: bad" in text
    assert "left something behind: messy" in text
    assert "1 (1)  x" in text


def test_the_junit_file_counts_crashes_as_failures_and_refusals_as_passed() -> None:
    suite = ElementTree.fromstring(junit(REPORT))[0]
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6", "failures": "2", "errors": "1", "skipped": "0",
    }  # fmt: skip
    cases = {case.get("name"): case for case in suite}
    assert cases["bad"].find("failure") is not None
    assert cases["odd"].find("error") is not None
    assert cases["shy"].find("failure") is None
    assert cases["good"].get("classname") == "kernel.a"


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_names_and_logs_as_text_never_as_markup() -> None:
    found = _Texts()
    found.feed(page(REPORT))
    assert "net: <b>0" in found.text
    assert "device & <none>" in found.text
    assert not {"b", "none", "address"} & set(found.tags)
    assert found.tags.count("tr") == 1 + len(MODULES)

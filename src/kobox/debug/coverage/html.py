"""Coverage as HTML pages: a table of files, and each source with its lines marked. They need nothing but themselves."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path

from kobox.debug.coverage.collected import FileCoverage
from kobox.debug.coverage.table import percent, shown_path, totals

_STYLE = """
:root { color-scheme: light dark; --run: #d9f2dd; --miss: #fbd9d7; --dim: #6b7280; --bar: #2e9e46; --rest: #d64541; }
@media (prefers-color-scheme: dark) { :root { --run: #173d22; --miss: #4b1d1c; --dim: #9ca3af; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .3rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr + tr { border-top: 1px solid var(--dim); }
.bar { display: inline-block; width: 8rem; height: .6rem; background: var(--rest); }
.bar i { display: block; height: 100%; background: var(--bar); }
pre { line-height: 1.45; overflow-x: auto; } pre span { display: block; min-width: max-content; }
pre b { display: inline-block; width: 8.5em; color: var(--dim); font-weight: normal; user-select: none; }
.run { background: var(--run); } .miss { background: var(--miss); } footer, .dim { color: var(--dim); }
"""


def write_html(files: Mapping[str, FileCoverage], folder: Path, relative_to: Path) -> Path:
    """Write ``index.html`` and a page per source file into a folder; returns the index."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {path: f"source-{number}.html" for number, path in enumerate(sorted(files), 1)}
    for path, page in pages.items():
        name = shown_path(path, relative_to)
        _write(folder / page, _page(name, _source(path, name, files[path])))
    index = folder / "index.html"
    _write(index, _page("Coverage of modules", _index(files, pages, relative_to)))
    return index


def _write(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text, encoding="utf-8", errors="replace")
    beside.replace(file)


def _page(title: str, body: Iterator[str]) -> str:
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en">{head}\n' + "\n".join(body) + "\n</html>\n"


def _index(files: Mapping[str, FileCoverage], pages: Mapping[str, str], relative_to: Path) -> Iterator[str]:
    yield "<h1>Coverage of modules</h1>"
    yield "<table><tr><th>file<th>lines<th>run<th>functions<th>entered<th><th></tr>"
    for path, page in pages.items():
        file = files[path]
        name = html.escape(shown_path(path, relative_to))
        entered = sum(1 for _, count in file.functions.values() if count)
        cells = f"<td>{len(file.lines)}<td>{file.covered}<td>{len(file.functions)}<td>{entered}"
        yield f'<tr><td><a href="{page}">{name}</a>{cells}{_bar(len(file.lines), file.covered)}</tr>'
    lines, covered = totals(files)
    yield f"<tr><th>total<td>{lines}<td>{covered}<td><td>{_bar(lines, covered)}</tr></table>"
    yield "<footer>by kobox; a line ran when any of its code did</footer>"


def _bar(lines: int, covered: int) -> str:
    share = percent(lines, covered)
    return f'<td>{share:.0f} %<td><span class="bar"><i style="width:{share:.1f}%"></i></span>'


def _source(path: str, name: str, file: FileCoverage) -> Iterator[str]:
    yield f'<p><a href="index.html">all files</a></p><h1>{html.escape(name)}</h1>'
    yield f"<p>{file.covered} of {len(file.lines)} lines ran. The number beside a line: in how many tests it ran.</p>"
    try:
        text = Path(path).read_text(errors="replace").splitlines()
    except OSError as error:
        yield f'<p class="dim">The source is not there: {html.escape(error.strerror or str(error))}.</p>'
        text = [""] * max(file.lines, default=0)
    yield (
        "<pre>" + "".join(_line(number, line, file.lines.get(number)) for number, line in enumerate(text, 1)) + "</pre>"
    )


def _line(number: int, text: str, count: int | None) -> str:
    kind = "" if count is None else ' class="run"' if count else ' class="miss"'
    shown = "" if count is None else str(count)
    return f'<span id="L{number}"{kind}><b>{number:>5} {shown:>5}</b> {html.escape(text.expandtabs(8)) or " "}</span>'

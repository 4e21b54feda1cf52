"""A sweep as one HTML page that needs nothing else: the summary, and a table that can be filtered."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from kobox.sweep.records import ModuleResult, SweepReport
from kobox.sweep.text import line_of, summary

_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; color-scheme: light dark }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; vertical-align: top; padding: .2rem .6rem; border-bottom: 1px solid #8884 }}
pre {{ white-space: pre-wrap; margin: 0 }}
.crashed, .hung, .error {{ color: #c22 }} .refused {{ color: #a60 }}
input {{ font: inherit; padding: .2rem .5rem; width: 24rem; max-width: 100%; margin: .8rem 0 }}
</style>
<h1>{title}</h1>
"""
_SCRIPT = """<script>
const find = document.getElementById("find"), rows = [...document.querySelectorAll("tbody tr")];
find.oninput = () => {
  const wanted = find.value.toLowerCase();
  for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
};
</script>
"""


def page(report: SweepReport) -> str:
    """The document."""
    return "".join(_parts(report))


def _parts(report: SweepReport) -> Iterator[str]:
    yield _HEAD.format(title=escape(f"kobox sweep of {report.release}"))
    yield f"<pre>{escape(chr(10).join(summary(report)))}</pre>\n"
    yield '<input id="find" type="search" placeholder="module, errno, driver, log line …" aria-label="filter">\n'
    yield "<table><thead><tr><th>module</th><th>result</th><th>registered</th><th>log</th></tr></thead><tbody>\n"
    for module in report.modules:
        yield from _row(module)
    yield f"</tbody></table>\n{_SCRIPT}"


def _row(module: ModuleResult) -> Iterator[str]:
    told = line_of(module).partition(": ")[2]
    registered = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in module.registered.items())
    log = "\n".join(text for _, text in (*module.log, *module.unload_log))
    yield f'<tr class="{module.verdict}"><td title="{escape(module.path)}">{escape(module.name)}</td>'
    yield f"<td>{escape(told)}</td><td>{escape(registered)}</td><td>"
    if log:
        count = len(module.log) + len(module.unload_log)
        yield f"<details><summary>{count} lines</summary><pre>{escape(log)}</pre></details>"
    yield "</td></tr>\n"

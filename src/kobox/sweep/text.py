"""A sweep as text: one line for what needs a look, and a summary."""

from __future__ import annotations

from collections.abc import Iterator

from kobox.abi.errno_names import name_of
from kobox.sweep.records import ModuleResult, SweepReport, ranked

_MOST_ROWS = 20
_NAMES = 8


def line_of(result: ModuleResult) -> str:
    """What became of one module, in a line."""
    what = {
        "loaded": "loaded",
        "refused": f"refused: {name_of(result.load) if result.load else 'not tried'}",
        "crashed": f"crashed: {result.oops}",
        "hung": f"hung: {result.reason}",
        "error": f"kobox error: {result.error}",
    }[result.verdict]
    if result.verdict == "refused" and result.reason:
        what += f" ({_short(result.reason)})"
    return f"{result.name}: {', '.join([what, *_end(result)])}"


def _short(reason: str) -> str:
    """Without the far end of a long list."""
    words = reason.split(", ")
    return reason if len(words) <= _NAMES else f"{', '.join(words[:_NAMES])} and {len(words) - _NAMES} more"


def _end(result: ModuleResult) -> Iterator[str]:
    if result.load == 0 and result.unload is not None:
        if result.permanent:
            yield "permanent"
        elif result.unload:
            yield f"not unloaded: {name_of(result.unload)}"
        else:
            yield "unloaded"
    if result.leftover:
        names = [name for left in result.leftover.values() for name in left]
        yield f"left {len(names)}: {' '.join(names[:_NAMES])}{' …' if len(names) > _NAMES else ''}"
    if result.warn:
        yield "warned"


def summary(report: SweepReport) -> Iterator[str]:
    """The whole, in a few lines."""
    facts = report.summary()
    yield (
        f"kernel {report.release}, CPU {report.cpu}: {len(report.modules)} modules in {report.seconds:.1f} s"
        f" ({report.jobs} {'process' if report.jobs == 1 else 'processes'})"
    )
    yield f"load:   {_row(facts['load_errno'])}"
    yield f"unload: {_row(facts['unload_errno'])}"
    for key, what in (("error", "kobox errors"), ("oops", "crashed"), ("hang", "hung"), ("warn", "warned")):
        if facts[key]:
            yield f"{what}: {' '.join(facts[key])}"
    left = [name for name in facts["leftover"] if name not in facts["permanent"]]
    if left:
        yield f"left something behind: {' '.join(left)}"
    rows = ranked(report.modules)
    if rows:
        yield "missing functions, by the modules that lack them (for how many it is the only one):"
        yield from (f"  {row.modules:6} ({row.alone})  {row.symbol}" for row in rows[:_MOST_ROWS])
        if len(rows) > _MOST_ROWS:
            yield f"  … and {len(rows) - _MOST_ROWS} more; --json has all"
    if facts["adopted"]:
        hit = (f"{name} ({one['fidelity']}, {one['modules']})" for name, one in facts["adopted"].items())
        yield f"served by kobox itself (fidelity, modules): {', '.join(hit)}"


def _row(counts: dict[str, int]) -> str:
    words = {"0": "0", "none": "not reached"}
    return ", ".join(f"{many} {words.get(name, name)}" for name, many in counts.items())

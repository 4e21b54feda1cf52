"""Replay recorded module loads through kobox and compare every answer: ``python -m tools.replay_golden DIR``.

DIR holds ``golden.json`` (the cases) and ``ko/`` (the modules). Each case gets a freshly booted kernel with the case's
command line, its steps are made one after the other, and everything the recording holds is compared: errno and return
value, log text and levels, sysfs, /proc/modules, uevents, taint. The last line is ``N of M agree``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tools.golden_compare import NORMALISERS, Difference, Observed, compare_step, tree_delta
from tools.golden_files import CaseFiles, Unavailable
from tools.golden_kernel import Answer, Entry, Files, GoldenKernel, perform

CASE_SECONDS = 60
_OOPS = re.compile(r"Oops: |BUG: |general protection fault|kernel BUG at ")
_TITLES = ("BUG: kernel NULL pointer", "BUG: unable to handle page fault", "general protection fault", "kernel BUG at ")
LENIENT = """\
A case that the real kernel did not survive (kernel_crash), outside of the group oops: from the step of the crash on, a
clean refusal agrees, a crash that begins with the same words and ends the caller in the same way, and the same answer
where the crash came after it. A case whose recordings differ among themselves (stable is not true) is compared but for
the texts of its log."""
Case = Mapping[str, Any]
Boot = Callable[[str], GoldenKernel]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case. ``waits`` says why it was not tried, ``broken`` what went wrong in kobox itself."""

    id: str
    group: str
    differences: list[Difference] = field(default_factory=list)
    waits: str = ""
    broken: str = ""
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        return not (self.differences or self.waits or self.broken)


def waits_for(case: Case) -> str:
    """Why a case cannot be tried yet: a shell is there for requests of the kernel, not for the tools themselves."""
    if case["group"] != "reqmod" and any(step["action"] == "sh" for step in case["steps"]):
        return "a shell"
    return ""


def replay_case(case: Case, kernel: GoldenKernel, files: Files) -> list[Difference]:
    """Make every step of a case on ``kernel`` and return all differences."""
    watched = [f"/sys/module/{name}" for name in case["watch"]]
    lenient = case["kernel_crash"] and case["group"] != "oops"
    differences: list[Difference] = []
    kernel.uevents()
    before: dict[str, Entry] | None = {}
    for number, step in enumerate(case["steps"], 1):
        if lenient and _crashed(step):
            if step["action"] in ("tree", "kallsyms"):
                break
            answer = perform(kernel, step["action"], step["args"], files)
            log = [] if answer.died else [record.text for record in kernel.log()]
            if not (_refused(answer) or _answered(step, answer) or _crashed_alike(step, answer, log)):
                text = f"{answer.errno_name or 'another crash'} ({_title(log) or 'no oops'})"
                differences.append(Difference(number, step["action"], "outcome", "a crash", text))
            break
        seen, before = _observe(kernel, step, files, watched, before)
        differences += compare_step(number, step, seen)
        if seen.answer.died:
            break
    if case["stable"] is not True:
        differences = [difference for difference in differences if difference.field != "dmesg"]
    return differences


def _crashed(step: Mapping[str, Any]) -> bool:
    """Whether the real kernel oopsed, hung or died in a step: in the call, or when the recorder looked afterwards."""
    if any(step.get(name) for name in ("killed_by_signal", "hung", "guest_died", "guest_hung")):
        return True
    return any(_OOPS.match(line["text"]) for line in step["dmesg"])


def _refused(answer: Answer) -> bool:
    return answer.value is not None and -4095 <= answer.value < 0


def _answered(step: Mapping[str, Any], answer: Answer) -> bool:
    """Whether the call ended as the recorded one did before the crash came."""
    return answer.errno_name is not None and answer.errno_name == step["errno"]


def _crashed_alike(step: Mapping[str, Any], answer: Answer, log: Sequence[str]) -> bool:
    """Whether kobox's guest crashed as the recorded kernel did; how a machine dies or hangs is not compared."""
    if answer.value is not None:
        return False
    if answer.killed_by is None or step.get("killed_by_signal") is None:
        return True
    recorded = _title([line["text"] for line in step["dmesg"]])
    return answer.killed_by == step["killed_by_signal"] and _title(log) == recorded


def _title(log: Sequence[str]) -> str:
    """How the first oops of a log begins."""
    return next((title for line in log for title in _TITLES if line.startswith(title)), "")


def _observe(
    kernel: GoldenKernel,
    step: Mapping[str, Any],
    files: Files,
    watched: Sequence[str],
    before: dict[str, Entry] | None,
) -> tuple[Observed, dict[str, Entry] | None]:
    """Make one step and look at everything around it.

    The recorder read the watched files before each call but the first, and after it. Where reading them left no trace
    in the log, what was read after the last step is what was there before this one; such a tree comes and goes as
    ``before``.
    """
    action, args = step["action"], step["args"]
    kernel.log()
    tainted_before = kernel.tainted()
    if before is None:
        before = _trees(kernel, watched)
    tree = kallsyms = None
    if action == "tree":
        tree, answer = kernel.tree(args["path"]), Answer(0)
    elif action == "kallsyms":
        kallsyms, answer = kernel.kallsyms(args["module"]), Answer(0)
    else:
        answer = perform(kernel, action, args, files)
    if answer.died:
        return Observed(answer, tainted_before, None, kernel.log(), [], None, {}, []), None
    if action == "bg":
        return Observed(answer, tainted_before, kernel.tainted(), kernel.log(), [], None, {}, []), None
    uevents = kernel.uevents()
    modules = kernel.proc_modules()
    log = kernel.log()
    after = _trees(kernel, watched)
    traces = kernel.log()
    changed, removed = tree_delta(before, after)
    sysfs = dict(after) if step.get("sysfs_kind") == "full" else changed
    tainted = kernel.tainted()
    seen = Observed(answer, tainted_before, tainted, [*log, *traces], uevents, modules, sysfs, removed, tree, kallsyms)
    return seen, None if traces else after


def _trees(kernel: GoldenKernel, paths: Sequence[str]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for path in paths:
        found |= kernel.watched(path)
    return found


# One worker


class _TooLong(Exception):
    pass


def _alarm(signum: int, frame: object) -> None:
    raise _TooLong


def run_case(case: Case, boot: Boot, root: Path, modules: Path | None) -> Outcome:
    """Replay one case; what breaks inside kobox becomes part of the outcome."""
    began = time.perf_counter()
    if waits := waits_for(case):
        return Outcome(case["id"], case["group"], waits=waits)
    files = Files(CaseFiles(root, modules, case.get("recipes") or {}))
    if hasattr(boot, "waits_for") and (waits := boot.waits_for(case, files.read)):
        return Outcome(case["id"], case["group"], waits=waits)
    differences: list[Difference] = []
    waits = broken = ""
    previous = signal.signal(signal.SIGALRM, _alarm)
    try:
        kernel = boot(case["boot_args"])
        signal.alarm(CASE_SECONDS)
        differences = replay_case(case, kernel, files)
    except Unavailable as missing:
        waits = str(missing)
    except _TooLong:
        broken = f"not done after {CASE_SECONDS} s"
    except Exception as error:  # noqa: BLE001 - one broken case must not end the run
        place = traceback.extract_tb(error.__traceback__)[-1]
        broken = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    return Outcome(case["id"], case["group"], differences, waits, broken, time.perf_counter() - began)


_WORKER: dict[str, Any] = {}


def _start_worker(image: str | None, loader: str, root: Path) -> None:
    booter: Any
    if image == "bare":
        from tools.golden_bare import BareBooter

        booter = BareBooter(image, loader)
    else:
        from tools.golden_box import BoxBooter

        booter = BoxBooter(image, loader, root)
    _WORKER.update(boot=booter, root=root, modules=booter.modules)


def _work(case: Case) -> Outcome:
    return run_case(case, _WORKER["boot"], _WORKER["root"], _WORKER["modules"])


def outcomes(cases: Sequence[Case], image: str | None, loader: str, root: Path, jobs: int) -> Iterator[Outcome]:
    """Replay cases in ``jobs`` processes, each with its own kernel; results come in the order of the cases."""
    if jobs == 1:
        _start_worker(image, loader, root)
        yield from map(_work, cases)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _start_worker, (image, loader, root), maxtasksperchild=200) as pool:
        yield from pool.imap(_work, cases, chunksize=4)


# The command


def load_cases(root: Path, only: str | None) -> list[Case]:
    path = root / "golden.json"
    cases: list[Case] = json.loads(path.read_text(encoding="utf-8"))
    if only is None:
        return cases
    wanted = re.compile(only)
    return [case for case in cases if wanted.search(case["id"]) or wanted.fullmatch(case["group"])]


def summary(results: Sequence[Outcome]) -> str:
    """The last line: how many agree of those tried, and how many wait."""
    tried = [result for result in results if not result.waits]
    line = f"{sum(result.agrees for result in tried)} of {len(tried)} agree"
    waiting = Counter(result.waits for result in results if result.waits)
    if waiting:
        reasons = ", ".join(f"{count} for {reason}" for reason, count in sorted(waiting.items()))
        line += f"; {sum(waiting.values())} wait: {reasons}"
    return line


def print_outcome(result: Outcome, limit: int) -> None:
    if result.waits or result.agrees:
        return
    print(f"{result.id} ({result.group})")
    if result.broken:
        print(f"  broke: {result.broken}")
    for difference in result.differences[:limit]:
        print(f"  {difference}")
    if len(result.differences) > limit:
        print(f"  and {len(result.differences) - limit} more")


def print_groups(results: Sequence[Outcome]) -> None:
    groups: dict[str, list[Outcome]] = {}
    for result in results:
        if not result.waits:
            groups.setdefault(result.group, []).append(result)
    for group, members in sorted(groups.items()):
        agreeing = sum(result.agrees for result in members)
        if agreeing < len(members):
            print(f"{group}: {agreeing} of {len(members)}")


def parser() -> argparse.ArgumentParser:
    described = f"{__doc__}\nNormalisers (all there are):\n{NORMALISERS}\n{LENIENT}\n"
    made = argparse.ArgumentParser(
        prog="python -m tools.replay_golden",
        description=described,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("directory", type=Path, help="golden.json and ko/")
    made.add_argument("--image", help="release or root of the image to boot, or bare")
    made.add_argument("--loader", choices=("kobox", "kernel"), default="kobox", help="whose load_module runs")
    made.add_argument("--only", metavar="REGEX", help="cases whose id has REGEX, or whose group is REGEX")
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="kernels at a time")
    made.add_argument("--limit", type=int, default=12, metavar="N", help="differences shown of a case")
    made.add_argument("--json", action="store_true", help="one object with every outcome")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        cases = load_cases(args.directory, args.only)
    except (OSError, ValueError, re.error) as error:
        print(f"replay_golden: {error}", file=sys.stderr)
        return 2
    results = []
    for result in outcomes(cases, args.image, args.loader, args.directory, args.jobs):
        results.append(result)
        if not args.json:
            print_outcome(result, args.limit)
    if args.json:
        listed = [asdict(result) | {"agrees": result.agrees} for result in results]
        print(json.dumps({"loader": args.loader, "summary": summary(results), "cases": listed}, indent=1))
    else:
        print_groups(results)
        if args.loader == "kernel":
            print("the image's own loader, for comparison only:", end=" ")
        print(summary(results))
    return 0 if all(result.agrees or result.waits for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""``kobox trace``: a module's life under the kernel's own tracer, as ftrace's text, JSON, or for Perfetto."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kobox.errors import UsageError

if TYPE_CHECKING:
    from kobox.debug.tracing import Trace
    from kobox.runner import RunReport

EPILOG = """\
examples:
  kobox trace bonding.ko.xz                          its calls with times, from load to unload
  kobox trace bonding.ko.xz --function 'bond_opt_*' --no-graph
  kobox trace ext4.ko.xz --probe kmem_cache_create   its arguments by name, and what it returned
  kobox trace ext4.ko.xz --event 'module:*' --chrome ext4.json
  kobox trace hello.ko -- my_param=7

Without --function, --module, --event and --probe: every function of the module, and the kernel's functions that it
calls. The file of --chrome is for https://ui.perfetto.dev and chrome://tracing. Exit status 0: the module was loaded;
1: it was not, or something that was to be traced does not exist.
"""
MIXES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.ko", help="module file, plain or .xz .zst .gz")
    parser.add_argument("parameters", nargs="*", metavar="name=value", help="module parameters")
    what = parser.add_argument_group("what to trace")
    what.add_argument(
        "--function", action="append", default=[], metavar="GLOB",
        help="functions of the kernel and of modules by name; '*': all; may be repeated",
    )  # fmt: skip
    what.add_argument(
        "--module", action="append", default=[], metavar="NAME",
        help="only functions of this module (and what it calls); may be repeated",
    )  # fmt: skip
    what.add_argument("--no-callees", action="store_true", help="without the kernel's functions that the module calls")
    what.add_argument(
        "--graph", action=argparse.BooleanOptionalAction, default=None,
        help="nested calls with durations (default), or each call with its caller",
    )  # fmt: skip
    what.add_argument(
        "--event", action="append", default=[], metavar="SYS:NAME", help="tracepoints, globs allowed; may be repeated"
    )
    what.add_argument(
        "--probe", action="append", default=[], metavar="[MODULE:]FUNCTION",
        help="arguments by name and result of a function; may be repeated",
    )  # fmt: skip
    what.add_argument("--buffer", type=int, default=0, metavar="KIB", help="size of the kernel's buffer")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="calls and events as JSON")
    form.add_argument("--chrome", metavar="FILE", type=Path, help="write the Trace Event Format for Perfetto to FILE")
    parser.add_argument("--image", metavar="R", help="kernel: a release that was added, a root, or a vmlinuz")
    parser.add_argument("--root", metavar="DIR", help="tree whose lib/modules has the modules it depends on")
    parser.add_argument("--append", default="", metavar="TEXT", help="kernel command line")
    parser.add_argument("--cpu", default="qemu64", metavar="MODEL", help="CPU model (default: qemu64)")


def run(args: argparse.Namespace) -> int:
    from kobox.box import boot
    from kobox.cli.progress import Progress
    from kobox.ko import read_module
    from kobox.runner import choose_image, run_in

    if args.chrome is not None and not args.chrome.parent.is_dir():
        raise UsageError(f"{args.chrome}: no folder {args.chrome.parent}")
    module = read_module(args.file)
    choice = choose_image(module, args.image)
    with Progress() as progress:
        kernel = boot(choice.image, append=args.append, cpu=args.cpu, check_memory=False, progress=progress)
        with kernel, kernel.trace(*args.function, **_options(args, module.name)) as tracing:
            progress("tracing")
            report = run_in(kernel, args.file, args.parameters, root=args.root, why=choice.why)
            trace = tracing.result
    _show(args, trace, report)
    for text in trace.missing:
        print(f"kobox trace: {text}", file=sys.stderr)
    return 1 if report.result or report.oops is not None or report.reason or trace.missing else 0


def _options(args: argparse.Namespace, module: str) -> dict[str, Any]:
    """The keywords of ``kernel.trace``: the file's own module unless something else was asked for."""
    wants_calls = bool(args.function or args.module or args.graph is not None)
    modules = list(args.module)
    if not args.function and not args.module:
        modules = [module]
    return {
        "modules": modules,
        "graph": args.graph is not False,
        "calls": wants_calls or not (args.event or args.probe),
        "callees": not args.no_callees,
        "events": args.event,
        "probes": args.probe,
        "buffer_kb": args.buffer,
    }


def _show(args: argparse.Namespace, trace: Trace, report: RunReport) -> None:
    from kobox.debug.tracing.data import as_chrome, as_data
    from kobox.debug.tracing.text import render

    said = f"not loaded: {report.errno_name} ({report.reason})" if report.result else report.reason or "loaded"
    if args.json:
        print(json.dumps(as_data(trace) | {"module": report.module, "result": report.result, "reason": report.reason}))
        return
    if args.chrome is not None:
        _write(args.chrome, json.dumps(as_chrome(trace)))
        print(f"{report.module}: {said}; {len(trace.calls)} calls and {len(trace.events)} events in {args.chrome}")
        return
    for line in render(trace):
        print(line)
    print(f"# {report.module}: {said}")


def _write(path: Path, text: str) -> None:
    """Under another name first, so that a file of this name is always whole."""
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        work.write_text(text)
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)

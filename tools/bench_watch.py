"""The edit loop's figures: ``python -m tools.bench_watch [--image R] [--rounds N] [--json]``.

A copy of examples/hello.c with a test beside it is watched by ``kobox watch``; its source is saved again and again, and
the times are taken where a user would see the result: when its line has been read. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tools.bench import Row

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TEST = """\
def test_parameter(kernel, kobox_build):
    hello = kernel.insmod(kobox_build / "hello.ko", my_param=7)
    assert hello.parameters["my_param"] == "7"
"""


def rounds(folder: Path, count: int, options: list[str]) -> Iterator[tuple[float, float, float]]:
    """Of each round: seconds from the compiler's end, from saving, and of the build alone."""
    source = (folder / "hello.c").read_text()
    line = [sys.executable, "-m", "kobox", "watch", str(folder), "--json", *options]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        done, build = 0, 0.0
        for text in process.stdout:
            event, now = json.loads(text), time.time()
            if event["event"] == "build":
                build = event["seconds"]
            if event["event"] != "result":
                continue
            if not event["ok"]:
                raise SystemExit(f"the round failed: {event}")
            if done > 1:  # the first builds all, the second translates the kernel's code
                late = now - event["time"]
                yield event["after_compiler"] + late, event["after_save"] + late, build
            if done > count:
                break
            done += 1
            time.sleep(0.5)
            (folder / ".new").write_text(f"{source}/* {done} */\n")
            (folder / ".new").rename(folder / "hello.c")
        process.terminate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="a release that was added, or a root; default: the newest added")
    parser.add_argument("--headers", help="as for kobox build")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    options = [
        word for name in ("image", "headers") if getattr(args, name) for word in (f"--{name}", getattr(args, name))
    ]
    with tempfile.TemporaryDirectory(prefix="kobox-bench-") as place:
        folder = Path(place)
        shutil.copy(EXAMPLES / "hello.c", folder)
        (folder / "test_hello.py").write_text(TEST)
        figures = list(rounds(folder, args.rounds, options))
    names = (
        ("compiler's end → module reloaded and its test result shown", 300.0),
        ("file saved → test result shown", 1000.0),
        ("kobox build of one changed file", 700.0),
    )
    rows = [
        Row(name, statistics.median(column) * 1000, "ms", budget)
        for (name, budget), column in zip(names, zip(*figures, strict=True), strict=True)
    ]
    if args.json:
        print(json.dumps([asdict(row) for row in rows]))
        return 0
    for row in rows:
        print(f"{row.name:<72} {row.value:9.2f} {row.unit:<5} budget {row.budget:8.2f}  ratio {row.ratio:5.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Build the modules in ``examples/`` and put them where they are committed: ``examples/prebuilt``.

The same sources, headers and compiler give the same bytes, wherever they lie: paths are mapped to ``examples/…`` and
debug data is stripped. ``--keep-debug`` leaves it in, for whoever wants source lines; such a file has the same build
id.

    python tools/rebuild_examples.py                                     # installed headers
    python tools/rebuild_examples.py --headers DIR --fetch --release 6.1.0-56-amd64
    python tools/rebuild_examples.py --keep-debug --out /tmp/with-lines
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import kernel_headers

from kobox.build.compiler import find_compiler
from kobox.build.headers import Headers
from kobox.errors import KoboxError

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SOURCES = ("Kbuild", "*.c", "*.h")
MADE_WITH = "made_with.json"
"""Beside the modules: kernel release and versions of the tools. The same ones give the same bytes."""


def build(headers: Headers, out: Path, sources: Path = EXAMPLES, keep_debug: bool = False) -> list[Path]:
    """Build every module below ``sources`` into ``out``, subfolders kept; what was built is returned, sorted."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch).resolve() / "examples"
        for source in sorted(path for pattern in SOURCES for path in sources.rglob(pattern)):
            copy = work / source.relative_to(sources)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        kernel_headers.make_modules(headers, work)
        built = []
        for module in sorted(work.rglob("*.ko")):
            if not keep_debug:
                subprocess.run(["strip", "--strip-debug", str(module)], check=True)
            target = out / module.relative_to(work)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(module, target)
            built.append(target)
    (out / MADE_WITH).write_text(json.dumps(kernel_headers.made_with(headers), indent=1) + "\n")
    return built


def main() -> int:
    """Parse, build, say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kernel_headers.add_arguments(parser)
    parser.add_argument(
        "--out", type=Path, default=EXAMPLES / "prebuilt", help="where the modules go (default: %(default)s)"
    )
    parser.add_argument("--keep-debug", action="store_true", help="do not strip debug data")
    args = parser.parse_args()
    try:
        headers = kernel_headers.from_arguments(args)
        built = build(headers, args.out.resolve(), keep_debug=args.keep_debug)
    except KoboxError as error:
        print(f"rebuild_examples: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(error.stdout, error.stderr, sep="\n", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in built)
    compiler = find_compiler(headers).program
    print(f"{len(built)} modules for {headers.release} with {compiler}, {size // 1024} KiB, in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

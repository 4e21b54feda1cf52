"""Build the kernel's own test modules and samples out of tree, against a distribution's headers.

They come from Debian's ``linux-source`` package, which apt downloads without root; only the folders named below are
unpacked. The source is the kernel's, under its licence: it is built into a cache and nothing of it is kept here.
KUnit's modules are left out, they need a kernel configured for them, as do rcutorture, test_maple_tree, test_objagg and
test_rslib. Debian itself ships a few more tests as modules: test_bpf, test_firmware, test_static_keys,
test_static_key_base and test_user_copy.

    python tools/build_kernel_tests.py --headers DIR --release 6.1.0-56-amd64 --out CACHE
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

import kernel_headers

from kobox.build.headers import Headers
from kobox.errors import KoboxError
from kobox.image.apt import download_packages

# Folder of the kernel's tree -> modules that are built in it.
TESTS = {
    "lib": """
        atomic64_test crc32test globtest interval_tree_test percpu_test rbtree_test test-kstrtox test-string_helpers
        test_bitmap test_bitops test_blackhole_dev test_debug_virtual test_dynamic_debug test_fpu test_free_pages
        test_hexdump test_ida test_kmod test_lockup test_memcat_p test_meminit test_min_heap test_module
        test_parman test_printf test_ref_tracker test_rhashtable test_scanf test_siphash test_string
        test_strscpy test_sysctl test_ubsan test_uuid test_vmalloc test_xarray""",
    "lib/math": "test_div64",
    "lib/livepatch": """
        test_klp_atomic_replace test_klp_callbacks_busy test_klp_callbacks_demo test_klp_callbacks_demo2
        test_klp_callbacks_mod test_klp_livepatch test_klp_shadow_vars
        test_klp_state test_klp_state2 test_klp_state3""",
    "kernel": "backtracetest",
    "kernel/locking": "test-ww_mutex locktorture",
    "kernel/time": "test_udelay clocksource-wdtest",
    "kernel/trace": "preemptirq_delay_test kprobe_event_gen_test synth_event_gen_test",
    "samples/configfs": "configfs_sample",
    "samples/fprobe": "fprobe_example",
    "samples/hw_breakpoint": "data_breakpoint",
    "samples/kfifo": "bytestream-example dma-example inttype-example record-example",
    "samples/kobject": "kobject-example kset-example",
    "samples/kprobes": "kprobe_example kretprobe_example",
    "samples/livepatch": """
        livepatch-callbacks-busymod livepatch-callbacks-demo livepatch-callbacks-mod livepatch-sample
        livepatch-shadow-fix1 livepatch-shadow-fix2 livepatch-shadow-mod""",
    "samples/trace_events": "trace-events-sample trace_custom_sched",
    "samples/trace_printk": "trace-printk",
    "samples/vfio-mdev": "mdpy mtty",
}
# Compiler flags that the kernel's own makefiles give to one object.
FLAGS = {
    "test_fpu": "-msse -msse2",
    "trace-events-sample": "-I$(src)",
    "trace_custom_sched": "-I$(src)",
}
EXTRA = ("tools/testing/selftests/kselftest_module.h",)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one module: where it is, or why it was not built. Nobody exports ``unresolved`` symbols."""

    name: str
    path: Path | None
    reason: str = ""
    unresolved: tuple[str, ...] = ()


def folders() -> dict[str, list[str]]:
    """``TESTS`` as lists."""
    return {folder: names.split() for folder, names in TESTS.items()}


def unpack_source(archive: Path, work: Path) -> None:
    """Unpack the folders that are built, and what they include, from a ``linux-source-X.tar.xz``."""
    wanted = set(folders())
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if member.isfile() and (str(path.parent) in wanted or str(path) in EXTRA):
                target = work / path  # never outside: its folder is one of ours
                target.parent.mkdir(parents=True, exist_ok=True)
                with cast(IO[bytes], tar.extractfile(member)) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)


def copy_source(tree: Path, work: Path) -> None:
    """The same from an unpacked tree."""
    for folder in folders():
        for path in sorted((tree / folder).glob("*")) if (tree / folder).is_dir() else []:
            if path.is_file():
                (work / folder).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, work / folder / path.name)
    for name in EXTRA:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tree / name, work / name)


def write_kbuild(work: Path, left_out: Mapping[str, str]) -> dict[str, str]:
    """One Kbuild a folder, with what is not left out; modules without source are returned with the reason."""
    missing: dict[str, str] = {}
    nested = []
    for folder, names in folders().items():
        lines = []
        for name in names:
            if not (work / folder / f"{name}.c").exists():
                missing[name] = f"this kernel has no {folder}/{name}.c"
            elif name not in left_out:
                lines.append(f"obj-m += {name}.o\n")
                if name in FLAGS:
                    lines.append(f"CFLAGS_{name}.o += {FLAGS[name]}\n")
        if lines:
            (work / folder / "Makefile").unlink(missing_ok=True)
            (work / folder / "Kbuild").write_text("".join(lines))
            nested.append(f"obj-m += {folder}/\n")
    (work / "Kbuild").write_text("".join(nested))
    return missing


def compile_all(headers: Headers, work: Path) -> tuple[str, dict[str, str]]:
    """Run kbuild until it succeeds, leaving out what does not compile: one bad object keeps all from being linked."""
    reasons: dict[str, str] = {}
    while True:
        missing = write_kbuild(work, reasons)
        try:
            return kernel_headers.make_modules(
                headers, work, variables=["KBUILD_MODPOST_WARN=1"], keep_going=True
            ), missing | reasons
        except subprocess.CalledProcessError as error:
            failed = re.findall(r"(\S+)\.c:\d+:\d+: (?:fatal )?error: (.*)", error.stderr)
            new = {PurePosixPath(source).name: text for source, text in reversed(failed)}
            if not new.keys() - reasons.keys():
                raise
            reasons |= new


def build(headers: Headers, work: Path, out: Path) -> list[Outcome]:
    """Build what ``work`` holds and copy the modules, stripped of debug data, into ``out``."""
    log, reasons = compile_all(headers, work)
    unresolved: dict[str, list[str]] = {}
    for symbol, module in re.findall(r'"(\S+)" \[(\S+)\.ko\] undefined!', log):
        unresolved.setdefault(PurePosixPath(module).name, []).append(symbol)
    out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for folder, names in folders().items():
        for name in names:
            if name in reasons:
                outcomes.append(Outcome(name, None, reasons[name]))
                continue
            built = work / folder / f"{name}.ko"
            subprocess.run(["strip", "--strip-debug", "-o", str(out / built.name), str(built)], check=True)
            outcomes.append(Outcome(name, out / built.name, unresolved=tuple(unresolved.get(name, ()))))
    return outcomes


def fetched_archive(release: str, scratch: Path) -> Path:
    """The source archive that belongs to ``release``, downloaded with apt."""
    version = ".".join(release.split(".")[:2])
    download_packages([f"linux-source-{version}"], scratch, progress=print)
    for package in scratch.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(scratch)], check=True)
    found = sorted((scratch / "usr/src").glob("linux-source-*.tar.*"))
    if not found:
        raise KoboxError(f"linux-source-{version} holds no archive")
    return found[0]


def default_out(release: str) -> Path:
    """Below the user's cache folder, one folder a release."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "kobox/kernel-tests" / release


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, fetch, build, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kernel_headers.add_arguments(parser)
    parser.add_argument(
        "--source", type=Path, help="kernel source: a tree or a linux-source-*.tar.xz (default: from apt)"
    )
    parser.add_argument("--out", type=Path, help="where the modules go (default: below the cache folder)")
    args = parser.parse_args(argv)
    try:
        headers = kernel_headers.from_arguments(args)
        out = args.out or default_out(headers.release)
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch).resolve() / "linux"
            if args.source and args.source.is_dir():
                copy_source(args.source, work)
            else:
                unpack_source(args.source or fetched_archive(headers.release, Path(scratch)), work)
            outcomes = build(headers, work, out)
    except (KoboxError, OSError) as error:
        print(f"build_kernel_tests: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(error.stdout, error.stderr, sep="\n", file=sys.stderr)
        return 1
    for outcome in outcomes:
        if outcome.path is None:
            print(f"{outcome.name}: not built: {outcome.reason}")
        elif outcome.unresolved:
            print(f"{outcome.name}: no module exports {' '.join(outcome.unresolved)}")
    built = [outcome for outcome in outcomes if outcome.path]
    print(f"{len(built)} of {len(outcomes)} modules in {out}, {sum(not o.unresolved for o in built)} with every symbol")
    return 0 if built else 1


if __name__ == "__main__":
    sys.exit(main())

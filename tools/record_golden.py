"""Record cases on a real kernel in QEMU: ``python -m tools.record_golden CASES --root ROOT --out DIR``.

CASES is a directory in the replayer's format, whose steps may lack their answers (a recording serves as well: its
answers are made anew). The kernel of ROOT (``boot/vmlinuz-*``, ``lib/modules/*``) is booted once for each command line,
in software emulation, with an initramfs of one static program (``tools/golden_init.c``) and the modules of the cases;
the machine is saved then, and restored for every case. DIR gets ``golden.json`` and ``ko/``.

Needs qemu-system-x86_64 and gcc. Steps ``sh`` need --busybox, a static busybox.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any

from kobox.errors import KoboxError
from tools.golden_compare import Entry, normal_text, tree_delta
from tools.golden_files import CaseFiles, Unavailable
from tools.golden_kernel import delete_flags, encode, errno_name
from tools.replay_golden import load_cases

SECONDS = 180
_SOURCE = Path(__file__).with_name("golden_init.c")
_QEMU = "qemu-system-x86_64"
_NULL = subprocess.DEVNULL
_NOISE = ("clocksource: ", "golden: end of step")
"""Lines of the recording machine's own: clocks that don't agree in emulation, the mark that completes a log line."""
Case = Mapping[str, Any]


class Recorder:
    """The parts that every case shares: kernel, first process, options, and a saved machine for each command line."""

    def __init__(self, root: Path, init: bytes, busybox: Path | None, seconds: int) -> None:
        kernels = sorted((root / "boot").glob("vmlinuz-*"))
        if not kernels:
            raise Unavailable(f"{root}/boot has no vmlinuz")
        self.kernel = kernels[-1]
        trees = sorted((root / "lib/modules").glob("*"))
        self.modules = trees[-1] if trees else None
        self.init, self.busybox, self.seconds = init, busybox, seconds

    def prepare(self, cases: Sequence[Case], source: Path, place: Path) -> SavedMachine:
        """Boot a machine that has the files of all ``cases`` (of one command line) and save it in ``place``."""
        machine = self.machine(cases, source, place)
        machine.save()
        return machine

    def machine(self, cases: Sequence[Case], source: Path, place: Path) -> SavedMachine:
        """One that was not switched on yet."""
        place.mkdir()
        (place / "initrd").write_bytes(gzip.compress(self.initramfs(cases, source), 1))
        return SavedMachine(self.command(place, cases[0].get("boot_args", "")), place, self.seconds)

    def record(self, case: Case, number: int, machine: SavedMachine) -> dict[str, Any]:
        """Restore the machine, make the steps, return the case with its answers."""
        facts, console = machine.run(number)
        steps = list(_steps(case, facts, console))
        crash = any(step.get("killed_by_signal") or step.get("hung") or step.get("guest_died") for step in steps)
        return {**case, "steps": steps, "kernel_crash": crash, "stable": True}

    def initramfs(self, cases: Sequence[Case], source: Path) -> bytes:
        packed: dict[str, bytes | None] = dict.fromkeys(
            ("dev", "proc", "sys", "tmp", "cases", "ko", "ko/image", "ko/ko", "ko/ko/mut", "bin", "sbin", "etc")
        )
        packed["init"] = self.init
        for number, case in enumerate(cases):
            files = CaseFiles(source, self.modules, case.get("recipes") or {})
            packed[f"cases/{number}"] = script(case).encode()
            for name in sorted(_files_of(case)):
                for parent in reversed(Path("ko", _guest_name(name)).parents[:-1]):
                    packed.setdefault(str(parent), None)
                if f"ko/{_guest_name(name)}" not in packed:
                    packed[f"ko/{_guest_name(name)}"] = files(name)
        if self.busybox is not None:
            packed["bin/busybox"] = packed["bin/sh"] = self.busybox.read_bytes()
        return cpio(packed)

    def command(self, place: Path, arguments: str) -> list[str]:
        return [
            *(_QEMU, "-accel", "tcg", "-cpu", "qemu64", "-smp", "1", "-m", "1024", "-nographic", "-no-reboot"),
            *("-net", "none", "-kernel", str(self.kernel), "-initrd", str(place / "initrd")),
            *("-append", f"console=ttyS0 quiet loglevel=8 panic=-1 {arguments}".strip()),
        ]


class SavedMachine:
    """A machine stopped where its first process waits for the number of a case; ``run`` goes on from there."""

    def __init__(self, command: Sequence[str], place: Path, seconds: int) -> None:
        self.command, self.place, self.seconds = list(command), place, seconds
        self.state = place / "state"

    def save(self) -> None:
        monitor = self.place / "monitor"
        with self.running(self.place, "-monitor", f"unix:{monitor},server=on,wait=off") as answers:
            if "ready" not in self.said(answers, lambda text: text.endswith("ready\n")):
                raise Unavailable(f"{_QEMU} did not come as far as the first process")
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(monitor))
                for order in ("migrate_set_parameter max-bandwidth 4G", f'migrate "exec:cat >{self.state}"'):
                    line.sendall(f"{order}\n".encode())
                deadline = time.monotonic() + self.seconds
                while not _migrated(line):
                    if time.monotonic() > deadline:
                        raise Unavailable(f"{_QEMU} did not save its machine")
                    time.sleep(0.1)

    def run_cold(self, number: int) -> str:
        """Power on, boot, run one case, end: what its first process said."""
        with self.running(self.place, "-monitor", "none") as answers:
            if "ready" not in self.said(answers, lambda text: text.endswith("ready\n")):
                raise Unavailable(f"{_QEMU} did not come as far as the first process")
            answers.sendall(f"#{number}\n".encode())
            return self.said(answers, lambda text: text.endswith("\ndone\n"))

    def run(self, number: int) -> tuple[list[list[str]], list[str]]:
        """Run the machine to its end: what its first process said, and its console."""
        deadline = time.monotonic() + self.seconds
        with tempfile.TemporaryDirectory(prefix="case-", dir=self.place) as folder:
            place = Path(folder)
            with self.running(place, "-monitor", "none", "-incoming", f"exec:cat {self.state}") as answers:
                # What is sent before the machine's state is loaded is lost.
                while not select.select([answers], [], [], 0.1)[0] and time.monotonic() < deadline:
                    answers.sendall(f"#{number}\n".encode())
                said = self.said(answers, lambda text: text.endswith("\ndone\n"))
            console = place / "console"
            shown = console.read_text("latin-1").replace("\r", "").splitlines() if console.exists() else []
        return [line.split(" ") for line in said.splitlines() if line], shown

    @contextlib.contextmanager
    def running(self, place: Path, *more: str) -> Iterator[socket.socket]:
        """The machine's second serial line, while it runs."""
        line = place / "answers"
        serial = ("-serial", f"file:{place / 'console'}", "-serial", f"unix:{line},server=on,wait=on")
        with subprocess.Popen([*self.command, *serial, *more], stdin=_NULL, stdout=_NULL, stderr=_NULL) as process:
            try:
                with socket.socket(socket.AF_UNIX) as answers:
                    _connect(answers, line, process)
                    yield answers
            finally:
                process.kill()

    def said(self, line: socket.socket, enough: Callable[[str], bool]) -> str:
        """What came until it is enough, the machine ends, or patience does."""
        deadline, text = time.monotonic() + self.seconds, ""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while not enough(text[-16:]):
                line.settimeout(max(deadline - time.monotonic(), 0.01))
                data = line.recv(1 << 16)
                if not data:
                    break
                text += data.decode("latin-1").replace("\r", "")
        return text


def _connect(line: socket.socket, path: Path, process: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            return line.connect(str(path))
        except OSError as error:
            if process.poll() is not None:
                raise Unavailable(f"{_QEMU} ended with code {process.returncode}") from error
            time.sleep(0.02)


def _migrated(line: socket.socket) -> bool:
    line.sendall(b"info migrate\n")
    return b"Migration status: completed" in line.recv(1 << 16)


def build_init(folder: Path) -> bytes:
    """The first process, compiled here."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise Unavailable("gcc is not installed")
    target = folder / "init"
    done = subprocess.run(
        [compiler, "-static", "-O1", "-o", target, _SOURCE], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"{_SOURCE.name} does not compile: {done.stderr.strip().splitlines()[-1]}")
    return target.read_bytes()


# What goes in


def cpio(files: Mapping[str, bytes | None]) -> bytes:
    """An archive in the format of an initramfs; None makes a directory."""
    out = bytearray()
    for number, (name, data) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        mode = 0o040755 if data is None else 0o100755
        content = data or b""
        sizes = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % size for size in sizes) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def script(case: Case) -> str:
    """The steps as the first process reads them: a line each, fields in hex between tabs."""
    lines = [_hex_line("watch", f"/sys/module/{name}") for name in case["watch"]]
    return "\n".join([*lines, *(_hex_line(*fields) for fields in map(_fields, case["steps"]))]) + "\n"


def _hex_line(*fields: str) -> str:
    return "\t".join(encode(field).hex() or "-" for field in fields)


def _fields(step: Mapping[str, Any]) -> tuple[str, ...]:
    action, args = step["action"], step["args"]
    match action:
        case "finit_module":
            return (action, _guest_path(args["file"]), args["params"], str(args["flags"]))
        case "init_module":
            return (action, _guest_path(args["file"]), args["params"], str(args.get("len") or ""))
        case "delete_module":
            return (action, args["name"], str(delete_flags(args["flags"])))
        case "finitspecial" | "initspecial" | "deletespecial":
            path = _guest_path(args["file"]) if args.get("file") else ""
            return (action, args["kind"], path, args.get("name") or "")
        case "write":
            return (action, args["path"], args["data"], str(args.get("uid") or 0))
        case "bg":
            inner = {name: value for name, value in args["step"].items() if name != "action"}
            return (action, str(args["slot"]), *_fields({"action": args["step"]["action"], "args": inner}))
        case "ioctl":
            return (action, *map(str, (args["slot"], args.get("request", args.get("cmd", 0)), args.get("arg") or 0)))
    order = {
        "read": ("path",),
        "tree": ("path",),
        "kallsyms": ("module",),
        "sh": ("cmd",),
        "sleep": ("ms",),
        "bgwait": ("slot", "ms"),
        "open": ("slot", "path", "oflags"),
        "close": ("slot",),
        "fread": ("slot", "count"),
        "fwrite": ("slot", "data"),
        "lseek": ("slot", "offset", "whence"),
    }
    return (action, *(str(args[name]) for name in order[action]))


def _files_of(case: Case) -> set[str]:
    steps = [step["args"] for step in case["steps"]]
    steps += [args["step"] for args in steps if "step" in args]
    return {args["file"] for args in steps if args.get("file")}


def _guest_name(name: str) -> str:
    return name.replace("image:", "image/")


def _guest_path(name: str) -> str:
    return f"/ko/{_guest_name(name)}"


# What comes out


def _steps(case: Case, facts: Sequence[Sequence[str]], console: Sequence[str]) -> Iterator[dict[str, Any]]:
    blocks = _blocks(facts)
    for number, step in enumerate(case["steps"]):
        wanted = {"action": step["action"], "args": step["args"]}
        if number < len(blocks) and blocks[number][-1][0] == "end":
            yield wanted | _answers(step["action"], blocks[number])
            continue
        died = any("Kernel panic" in line for line in console)
        last = blocks[number] if number < len(blocks) else []
        before = [int(fact[1]) for fact in last if fact[0] == "tainted_before"]
        yield wanted | {
            "tainted_before": before[0] if before else None,
            "ret": None,
            "errno": None,
            "guest_died": died,
            "guest_hung": not died,
            "dmesg": [{"level": None, "text": text} for text in _console_end(console, _logged(blocks[:number]))],
            "dmesg_from": "serial console (levels lost)",
            "proc_modules": None,
            "sysfs": {},
            "tainted_after": None,
        }
        return


def _blocks(facts: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    blocks: list[list[Sequence[str]]] = []
    for fact in facts:
        if fact[0] == "step":
            blocks.append([])
        elif blocks and not (blocks[-1] and blocks[-1][-1][0] == "end"):
            blocks[-1].append(fact)
    return [block or [["cut"]] for block in blocks]


def _answers(action: str, block: Sequence[Sequence[str]]) -> dict[str, Any]:
    def all_of(word: str) -> list[Sequence[str]]:
        return [fact for fact in block if fact[0] == word]

    def number_of(word: str) -> int:
        return int(all_of(word)[0][1])

    found: dict[str, Any] = {
        "tainted_before": number_of("tainted_before"),
        "tainted_after": number_of("tainted_after"),
        "ret": None,
        "errno": None,
        "errno_num": None,
    }
    for _, value, number, not_opened in all_of("answer"):
        found["ret"] = -2 if not_opened == "1" else int(value)
        found["errno_num"] = int(number)
        found["errno"] = errno_name(int(number)) if int(number) else "OK"
        if not_opened == "1":
            found["open_failed"] = True
    for _, text in all_of("output"):
        found["output"] = normal_text(_unhex(text).decode("latin-1"))
    for _, number in all_of("killed"):
        found["killed_by_signal"] = int(number)
    if all_of("hung"):
        found["hung"] = True
    found["dmesg"] = list(_log(_unhex(text).decode("utf-8", "replace") for _, text in all_of("kmsg")))
    uevents = [_unhex(text).decode("latin-1").split("\0") for _, text in all_of("uevent")]
    kept = [[line for line in event if line and not line.startswith("SEQNUM=")] for event in uevents]
    if kept:
        found["uevents"] = kept
    locked = [fact[1] for fact in all_of("locked")]
    found["proc_modules"] = None
    if "/proc/modules" in locked:
        found["modules_locked"] = True
    for _, text in all_of("modules"):
        found["proc_modules"] = normal_text(_unhex(text).decode("latin-1")).splitlines()
    found |= _sysfs(action, found, [*all_of("before")], [*all_of("sysfs")])
    if action == "tree":
        found["tree"] = dict(map(_raw_entry, all_of("tree")))
    if action == "kallsyms":
        lines = [_unhex(text).decode("latin-1") for _, text in all_of("symbol")]
        found["kallsyms"] = [normal_text(line).replace("\t", " ") for line in lines]
    return found


def _sysfs(
    action: str, answer: Mapping[str, Any], before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]
) -> dict[str, Any]:
    if action == "bg":
        return {"sysfs": {}, "sysfs_kind": "none"}
    now = dict(map(_raw_entry, after))
    loaded = action in ("finit_module", "init_module", "finitspecial", "initspecial") and answer["ret"] == 0
    if loaded:
        return {"sysfs": now, "sysfs_kind": "full"}
    old = dict(map(_raw_entry, before))
    changed, removed = tree_delta(
        {path: Entry(json.dumps(raw)) for path, raw in old.items()},
        {path: Entry(json.dumps(raw)) for path, raw in now.items()},
    )
    found: dict[str, Any] = {"sysfs": {path: now[path] for path in changed}, "sysfs_kind": "delta"}
    return found | ({"sysfs_removed_roots": removed} if removed else {})


def _raw_entry(fact: Sequence[str]) -> tuple[str, dict[str, Any]]:
    path, kind, mode = _unhex(fact[1]).decode("latin-1"), fact[2], fact[3]
    if kind == "link":
        return path, {"type": "link", "target": _unhex(fact[4]).decode("latin-1")}
    raw: dict[str, Any] = {"mode": f"{int(mode, 8):04o}", "type": kind}
    if kind == "dir" or len(fact) < 5:
        return path, raw
    if fact[4].startswith("!"):
        return path, raw | {"read_errno": int(fact[4][1:])}
    content = _unhex(fact[4])
    printable = all(32 <= byte < 127 or byte in b"\n\t" for byte in content)
    if printable:
        return path, raw | {"content": normal_text(content.decode("latin-1"))}
    return path, raw | {"content_hex": content.hex()}


def _log(records: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Records of /dev/kmsg: ``priority,sequence,time,flags;text`` with bytes escaped as ``\\xNN``."""
    for record in records:
        head, _, text = record.partition(";")
        priority, _, _, flags, *_ = [*head.split(","), "", "", "", ""]
        if text.startswith(_NOISE):
            continue
        text = text.split("\n")[0]
        line: dict[str, Any] = {"level": int(priority) & 7, "text": normal_text(_unescaped(text))}
        if int(priority) >> 3:
            line["facility"] = int(priority) >> 3
        if flags == "c":
            line["cont"] = 1
        yield line


def _unescaped(text: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)


def _logged(blocks: Sequence[Sequence[Sequence[str]]]) -> int:
    """How many lines of the console belong to steps that ended."""
    texts = [
        _unhex(fact[1]).partition(b";")[2].decode("latin-1") for block in blocks for fact in block if fact[0] == "kmsg"
    ]
    return sum(not text.startswith(_NOISE) for text in texts)


def _console_end(console: Sequence[str], before: int) -> list[str]:
    """The last words: what the machine showed since it was restored, without the first ``before`` lines."""
    texts = [re.sub(r"^\[ *\d+\.\d+\] ?", "", line) for line in console]
    return [normal_text(text) for text in texts if not text.startswith(_NOISE)][before:]


def _unhex(text: str) -> bytes:
    return b"" if text == "-" else bytes.fromhex(text)


# The command


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.record_golden",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", type=Path, help="a directory with golden.json and ko/")
    parser.add_argument("--root", type=Path, required=True, help="boot/vmlinuz-* and lib/modules/* of the kernel")
    parser.add_argument("--out", type=Path, required=True, help="where golden.json and ko/ go")
    parser.add_argument("--only", metavar="REGEX", help="cases whose id has REGEX, or whose group is REGEX")
    parser.add_argument("--busybox", type=Path, help="a static busybox, for steps that need a shell")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="machines at a time")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="patience with one case")
    args = parser.parse_args(argv)
    try:
        if shutil.which(_QEMU) is None:
            raise Unavailable(f"{_QEMU} is not installed")
        cases = load_cases(args.cases, args.only)
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(args.root, build_init(Path(folder)), args.busybox, args.seconds)
        recorded = [case for _, case in sorted(_record_all(recorder, cases, args.cases, args.jobs), key=itemgetter(0))]
    except (OSError, ValueError, Unavailable, KoboxError) as error:
        print(f"record_golden: {error}", file=sys.stderr)
        return 1
    _write(recorded, args.cases, args.out)
    print(f"{len(recorded)} cases recorded in {args.out}")
    return 0


def _record_all(
    recorder: Recorder, cases: Sequence[Case], source: Path, jobs: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Recorded cases with their places in ``cases``, those of one command line after the other."""
    groups: dict[str, list[tuple[int, Case]]] = {}
    for place, case in enumerate(cases):
        groups.setdefault(case.get("boot_args", ""), []).append((place, case))
    for members in groups.values():
        with tempfile.TemporaryDirectory(prefix="golden-") as folder, ThreadPoolExecutor(jobs) as pool:
            machine = recorder.prepare([case for _, case in members], source, Path(folder, "machine"))

            def one(number: int, case: Case, machine: SavedMachine = machine) -> dict[str, Any]:
                began = time.perf_counter()
                done = recorder.record(case, number, machine)
                print(f"{case['id']}: {len(done['steps'])} steps, {time.perf_counter() - began:.1f} s", file=sys.stderr)
                return done

            made = pool.map(one, range(len(members)), [case for _, case in members])
            yield from zip([place for place, _ in members], made, strict=True)


def _write(recorded: Sequence[Case], source: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for case in recorded:
        for name in _files_of(case):
            if name.startswith("image:") or name in (case.get("recipes") or {}):
                continue
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.resolve() != (source / name).resolve():
                shutil.copyfile(source / name, target)
    (out / "golden.json").write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())

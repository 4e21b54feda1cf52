"""Figures against budgets and a peer: ``make bench``.

    python -m tools.bench [--image R|ROOT] [--only WORD] [--json]

Each row is a median in the unit shown, its budget, and the ratio of the two (below 1 is within the budget). Budgets
were set on a machine on which ``python -c pass`` takes 9 ms; the first line says what it takes here. With
qemu-system-x86_64 installed the real kernel is booted under software emulation as the peer. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kobox.box import Kernel, boot
from kobox.errors import Errno
from kobox.image import Image, list_images, open_image
from kobox.kernel.device_mapper import Target
from kobox.ko import read_module
from kobox.net.sockets import MSG_DONTWAIT
from kobox.runner import Finder
from kobox.sweep import SweepOptions, sweep

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "prebuilt"
_TRAPS = 20_000


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure. ``budget`` and ``value`` share ``unit``; ``better`` says which way is good."""

    name: str
    value: float
    unit: str
    budget: float
    better: str = "less"

    @property
    def ratio(self) -> float:
        """Below 1: within the budget."""
        return self.value / self.budget if self.better == "less" else self.budget / self.value


def median(action: Callable[[], object], rounds: int, scale: float = 1000.0) -> float:
    """Median time of ``action`` after one warm-up, in milliseconds unless scaled."""
    action()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append((time.perf_counter() - start) * scale)
    return statistics.median(times)


def command(*arguments: str, environment: dict[str, str] | None = None) -> Callable[[], object]:
    """Run ``kobox`` as a whole process, with its bytecode kept, as an installed kobox has it."""
    line = [sys.executable, "-m", "kobox", *arguments]
    own = {**os.environ, **(environment or {})}
    own.pop("PYTHONDONTWRITEBYTECODE", None)
    return partial(subprocess.run, line, check=True, stdout=subprocess.DEVNULL, env=own)


def run_bare(_: Image) -> Row:
    value = median(command("run", "--image", "bare", str(EXAMPLES / "hello.ko")), 9)
    return Row("kobox run hello.ko on bare, whole process", value, "ms", 130)


def run_image(image: Image) -> Row:
    value = median(command("run", "--image", _name(image), str(EXAMPLES / "hello.ko")), 9)
    return Row("kobox run hello.ko on the image from its snapshot, whole process", value, "ms", 250)


def shell(image: Image) -> Row:
    value = median(command("shell", "--image", _name(image), "-c", "cat /proc/version"), 9)
    return Row("kobox shell -c on the image from its snapshot, whole process", value, "ms", 350)


def load_cycle(image: Image) -> Row:
    hello = (EXAMPLES / "hello.ko").read_bytes()
    with boot(_name(image)) as kernel:

        def cycle() -> None:
            kernel.init_module(hello)
            kernel.rmmod("hello")

        cycle()
        return Row("load, init, exit, unload of hello.ko in a running kernel", median(cycle, 50), "ms", 5)


def reset(image: Image) -> Row:
    flip = (EXAMPLES / "hostile" / "flip_key.ko").read_bytes()
    with boot(_name(image)) as kernel:
        kernel.mark_pristine()
        times = []
        for _ in range(30):
            kernel.init_module(flip)
            start = time.perf_counter()
            kernel.reset()
            times.append((time.perf_counter() - start) * 1000)
        return Row("pristine again after a load that flipped a static key", statistics.median(times), "ms", 1)


def function_tracer(image: Image) -> Row:
    return _traced(image, False, "slowdown by the function tracer on every function, bonding's whole life", 10)


def graph_tracer(image: Image) -> Row:
    return _traced(image, True, "slowdown by the graph tracer on every function, bonding's whole life", 10)


def graph_of_a_module(image: Image) -> Row:
    return _traced(image, True, "slowdown by the graph tracer on bonding and what it calls, its whole life", 10, False)


def _traced(image: Image, graph: bool, name: str, budget: float, everything: bool = True) -> Row:
    """The same loads and unloads in a running kernel with a trace on, against without. Begin and end of the trace, and
    reading it, are not in it."""
    with boot(_name(image), check_memory=False) as kernel:
        finder = Finder(Path("/nonexistent"), [], kernel.modules_folder)
        bonding = read_module(finder.find("bonding"))
        for needed in finder.in_order(bonding):
            kernel.insmod(needed)

        def life() -> None:
            kernel.init_module(bytes(bonding.data))
            kernel.rmmod("bonding")

        plain = median(life, 15)
        chosen = ("*",) if everything else ()
        with kernel.trace(*chosen, graph=graph, modules=() if everything else ("bonding",)):
            traced = median(life, 15)
    return Row(name, traced / plain, "times", budget)


def autoload(image: Image) -> Row:
    """Mounting ext4 where it is not loaded: the request, modprobe's plan, five modules with their self-tests.

    Each time after a reset, as tests do it: the first load links the modules, the others find them linked. The first
    one, for which the kernel's code is not translated yet, is printed beside.
    """
    with boot(_name(image)) as kernel:
        kernel.modprobe_program.resolver.insert("ext4")
        kernel.mark_pristine()
        times = []
        for _ in range(9):
            kernel.reset()
            start = time.perf_counter()
            with contextlib.suppress(Errno):
                kernel.files.mount("/dev/null", "/root", "ext4")
            times.append((time.perf_counter() - start) * 1000)
        print(f"  {times[0]:.0f} ms for the first load of the process", file=sys.stderr)
        if not kernel.module("ext4").loaded:
            raise SystemExit("the kernel did not get ext4")
        return Row("ext4 with its dependencies, asked for by a mount", statistics.median(times), "ms", 60)


_FILE_SIZE = 64 << 20


def _image_with_a_file(folder: Path) -> Path:
    """ext4 with one large ``file``."""
    disk_file = folder / "disk"
    (folder / "tree").mkdir()
    (folder / "tree/file").write_bytes(os.urandom(_FILE_SIZE))
    with open(disk_file, "wb") as made:
        made.truncate(96 << 20)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", "-d", f"{folder}/tree", str(disk_file)], check=True)
    return disk_file


def mounted_read(image: Image) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        disk_file, place = _image_with_a_file(Path(folder)), Path(folder) / "mnt"
        place.mkdir()
        command("mount", "--image", _name(image), str(disk_file), str(place))()
        try:
            start = time.perf_counter()
            with open(place / "file", "rb", buffering=0) as file:
                read = 0
                while chunk := file.read(1 << 20):
                    read += len(chunk)
            taken = time.perf_counter() - start
        finally:
            command("umount", str(place))()
    if read != _FILE_SIZE:
        raise SystemExit("the file is not whole")
    return Row("a 64 MB file read through kobox mount, ext4", read / 1e6 / taken, "MB/s", 20, "more")


def read_ext4(image: Image) -> Row:
    size = _FILE_SIZE
    with (
        boot(_name(image)) as kernel,
        tempfile.TemporaryDirectory() as folder,
        kernel.attach_disk(_image_with_a_file(Path(folder)), live=True) as disk,
    ):
        kernel.files.mount(disk.device, "/root", "ext4", 1)
        start = time.perf_counter()
        if len(kernel.read("/root/file")) != size:
            raise SystemExit("the file is not whole")
        taken = time.perf_counter() - start
        kernel.files.umount("/root")
    return Row("a 64 MB file read from a mounted ext4 image", size / 1e6 / taken, "MB/s", 40, "more")


def tcp_between_namespaces(image: Image) -> Row:
    """A stream from one network namespace to another through a veth, both ends served by Python in turn. No budget was
    set: it is stated."""
    size, piece = 64 << 20, os.urandom(1 << 16)
    with boot(_name(image)) as kernel:
        left, right = kernel.net.namespace("left"), kernel.net.namespace("right")
        left.add_link("l", "veth", peer="r", peer_namespace="right")
        for net, device, address in ((left, "l", "10.0.0.1/24"), (right, "r", "10.0.0.2/24")):
            net.set_link(device, up=True)
            net.add_address(device, address)
        with right.socket() as server, left.socket() as client:
            server.bind(("10.0.0.2", 80))
            server.listen()
            client.connect(("10.0.0.2", 80))
            with server.accept() as peer:
                start = time.perf_counter()
                sent = got = 0
                while got < size:
                    with contextlib.suppress(Errno):  # the window is full: EAGAIN
                        while sent < size:
                            sent += client.send(piece, MSG_DONTWAIT)
                    got += len(peer.recv(1 << 20))
                taken = time.perf_counter() - start
    return Row("TCP through a veth between two namespaces of one kernel", size / 1e6 / taken, "MB/s", 50, "more")


def encrypted_disk(image: Image) -> Row:
    """What dm-crypt encrypts on its way to a loop device; with the generic AES, as the stated CPU has no instructions
    for it. Stated, too."""
    size = 8 << 20
    with boot(_name(image)) as kernel, kernel.attach_disk(bytes(size)) as disk:
        table = [Target(0, size // 512, "crypt", f"aes-xts-plain64 {'5a' * 64} 0 {disk.device} 0")]
        secret = kernel.dm.create("secret", table)
        data = os.urandom(size)
        start = time.perf_counter()
        kernel.files.write(secret.path, data)
        taken = time.perf_counter() - start
        kernel.dm.remove("secret")
    return Row("written to a disk encrypted by dm-crypt (AES-XTS)", size / 1e6 / taken, "MB/s", 5, "more")


def load_after_reset(image: Image) -> Row:
    """A load right after a reset that took back a flipped static key, against the same load without a reset."""
    hello, flip = ((EXAMPLES / name).read_bytes() for name in ("hello.ko", "hostile/flip_key.ko"))
    with boot(_name(image)) as kernel:

        def timed() -> float:
            start = time.perf_counter()
            kernel.init_module(hello)
            taken = (time.perf_counter() - start) * 1000
            kernel.rmmod("hello")
            return taken

        for _ in range(3):
            timed()  # a kernel's very first loads do more: slabs, lines said once
        kernel.checkpoint()
        fresh, again = [], []
        for _ in range(30):
            kernel.init_module(flip)
            kernel.reset()
            fresh.append(timed())
            again.append(timed())
        return Row(
            "load after a reset, against a load without one", statistics.median(fresh), "ms", statistics.median(again)
        )


def completing(_: Image) -> Row:
    """What a press of the key costs: the parameters of a module file are the dearest of the small answers."""
    value = median(command("__complete", "run", str(EXAMPLES / "hello.ko"), ""), 9)
    return Row("an answer to a shell's completion, whole process", value, "ms", 100)


def covered(image: Image) -> Row:
    """A guest loop of an exported function of a module, with its blocks noted, against the same without."""
    taken = []
    for noted in (False, True):
        with boot(_name(image)) as kernel:
            if noted:
                kernel.record_coverage()
            folder = kernel.modules_folder
            assert folder is not None
            kernel.insmod(next(folder.rglob("crc16.ko*")))
            buffer = kernel.call("__kmalloc", 1 << 14, _GFP_KERNEL)
            taken.append(median(partial(kernel.call, "crc16", 0, buffer, 1 << 14), 5))
    return Row("a busy function of a module with coverage, against without", taken[1], "ms", taken[0] * 1.5)


def trap(image: Image) -> Row:
    """A guest loop that calls an adopted function with two arguments."""
    with boot(_name(image)) as kernel:
        area = kernel.guest.machine.area
        seen = [0]

        def handler() -> None:
            first, second, *_ = area.arguments()
            seen[0] += first + second

        stub = area.stub("bench: two arguments", handler)
        code = bytearray(b"\x53\xbb" + _TRAPS.to_bytes(4, "little"))  # push rbx; mov ebx, n
        again = len(code)
        code += b"\xbf\x01\x00\x00\x00\xbe\x02\x00\x00\x00\x48\xb8" + stub.to_bytes(8, "little") + b"\xff\xd0"
        code += b"\xff\xcb\x75" + (again - len(code) - 4 & 0xFF).to_bytes(1, "little") + b"\x5b\xc3"
        address = area.code(bytes(code))
        value = median(lambda: kernel.call(address), 5, 1e6 / _TRAPS)
        return Row("one trap into a Python handler with two arguments, and back", value, "µs", 4)


def link_all(image: Image) -> Row:
    from kobox.kernel.demands import KernelExports
    from kobox.ko import module_name, split_signature
    from kobox.link.linked import link_tree, mapped

    tree = image.modules
    if tree is None:
        raise SystemExit(f"{image.release} has no modules")
    files = {module_name(path.name): path for path in sorted(tree.rglob("*.ko"))}
    load = {name: partial(lambda path: split_signature(mapped(path))[0], path) for name, path in files.items()}
    start = time.perf_counter()
    report = link_tree(load, KernelExports(image))
    seconds = time.perf_counter() - start
    if report.failures:
        print(f"  {len(report.failures)} of {report.modules} modules do not link", file=sys.stderr)
    return Row(f"linking {report.linked} of {report.modules} modules, one process", seconds, "s", 8)


def first_boot(image: Image) -> Row:
    """Unpack, parse, boot and snapshot with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        run = command(
            "run", "--image", _name(image), str(EXAMPLES / "hello.ko"), environment={"KOBOX_CACHE_DIR": cache}
        )
        start = time.perf_counter()
        run()
        return Row("first boot of the image, nothing cached", time.perf_counter() - start, "s", 8)


def crc32(image: Image) -> Row:
    size = 1 << 20
    with boot(_name(image)) as kernel:
        buffer = kernel.call("vmalloc", size)
        kernel.guest.write(buffer, os.urandom(size))
        ms = median(lambda: kernel.call("crc32_le", 0, buffer, size), 9)
        return Row("borrowed crc32 over 1 MiB", size / ms / 1000, "MB/s", 300, "more")


def memory_after_many(image: Image) -> Row:
    """What 10,000 loads and unloads leave behind in the guest and in Python, against the state after 100.

    Unicorn keeps translated code until its buffer is full, also of modules that are gone, and the log keeps every line
    of a kernel's life: the process grows by both, and is printed beside; the lines do not count as left behind.
    """
    module = (EXAMPLES / "misc.ko").read_bytes()
    with boot(_name(image)) as kernel:
        sizes = []
        log = kernel.booted.log
        start = log.mark(), log.position()
        for turn in range(10_001):
            if turn in (100, 10_000):
                kernel.sleep(1)
                print(f"  {log.mark() - start[0]} lines after {turn} loads", file=sys.stderr)
                log.rewind(start[1])
                gc.collect()
                sizes.append((sys.getallocatedblocks(), _free_pages(kernel), _resident()))
            kernel.init_module(module)
            kernel.rmmod("misc")
        (python, guest, whole), (python_end, guest_end, whole_end) = sizes
        print(f"  Python: {python} -> {python_end} objects; guest: {guest} -> {guest_end} KiB free", file=sys.stderr)
        print(f"  the whole process: {whole} -> {whole_end} KiB resident", file=sys.stderr)
        return Row("guest memory lost over 9,900 loads and unloads", max(guest - guest_end, 0) + 1, "KiB", 1024)


def sweep_all(image: Image) -> Row:
    """The budget is for two CPUs; the real kernel under QEMU took 1,013 s for 4,023 modules."""
    report = sweep(SweepOptions(_name(image)))
    print(f"  {len(report.modules)} modules in {report.jobs} processes", file=sys.stderr)
    return Row("every module of the image loaded and unloaded in a fresh state", report.seconds, "s", 120)


def _resident() -> int:
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon"))


def _free_pages(kernel: Kernel) -> int:
    text = kernel.read("/proc/meminfo").decode()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("MemFree"))


ROWS: dict[str, Callable[[Image], Row]] = {
    "bare": run_bare,
    "run": run_image,
    "shell": shell,
    "cycle": load_cycle,
    "reset": reset,
    "trace-functions": function_tracer,
    "trace-graph": graph_tracer,
    "trace-module": graph_of_a_module,
    "after-reset": load_after_reset,
    "complete": completing,
    "coverage": covered,
    "autoload": autoload,
    "read-ext4": read_ext4,
    "mount": mounted_read,
    "tcp": tcp_between_namespaces,
    "dm-crypt": encrypted_disk,
    "trap": trap,
    "link": link_all,
    "first-boot": first_boot,
    "crc32": crc32,
}
SLOW: dict[str, Callable[[Image], Row]] = {"memory": memory_after_many, "sweep": sweep_all}


def qemu_peer(image: Image) -> float | None:
    """Seconds in which the real kernel boots under QEMU, loads hello.ko and ends; None where that cannot be had."""
    if shutil.which("qemu-system-x86_64") is None or image.modules is None:
        return None
    from tools.record_golden import Recorder, build_init

    step = {"action": "finit_module", "args": {"file": "hello.ko", "params": "", "flags": 0}}
    case: dict[str, Any] = {"id": "bench", "group": "bench", "desc": "", "watch": [], "steps": [step], "boot_args": ""}
    with tempfile.TemporaryDirectory() as folder:
        root = image.modules.parents[2]
        recorder = Recorder(root, build_init(Path(folder)), None, 120)
        shutil.copy(EXAMPLES / "hello.ko", Path(folder) / "hello.ko")
        machine = recorder.machine([case], Path(folder), Path(folder) / "machine")
        start = time.perf_counter()
        said = machine.run_cold(0)
        if "\nanswer 0 " not in said:
            raise SystemExit(f"the machine in QEMU did not load hello.ko: {said!r}")
        return time.perf_counter() - start


def _name(image: Image) -> str:
    return _NAMES[image.key]


_NAMES: dict[str, str] = {}
_GFP_KERNEL = 0xCC0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="a release that was added, or a root; default: the newest added")
    parser.add_argument("--only", help=f"one of {', '.join([*ROWS, *SLOW])}")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    images = list_images()
    if args.image is None and not images:
        parser.error("no image was added: kobox kernel add --debian, or --image ROOT")
    name = args.image or images[-1].release
    image = open_image(name)
    _NAMES[image.key] = name
    wanted = {args.only: (ROWS | SLOW)[args.only]} if args.only else ROWS
    interpreter = median(partial(subprocess.run, [sys.executable, "-c", "pass"], check=True), 15)
    if not args.json:
        print(f"{'python -c pass, whole process: the measure of this machine':<72} {interpreter:9.2f} ms")
    rows = []
    for measure in wanted.values():
        row = measure(image)
        rows.append(row)
        if not args.json:
            print(f"{row.name:<72} {row.value:9.2f} {row.unit:<5} budget {row.budget:8.2f}  ratio {row.ratio:5.2f}")
    peer = None if args.only else qemu_peer(image)
    if args.json:
        answer = {"release": image.release, "python_ms": interpreter, "rows": [asdict(row) for row in rows]}
        print(json.dumps(answer | {"qemu_seconds": peer}))
    elif peer is not None:
        whole = next(row for row in rows if "image from its snapshot" in row.name)
        print(f"{'the real kernel in QEMU: boot, insmod hello.ko, end':<72} {peer:9.2f} s", end="")
        print(f"     kobox is {peer * 1000 / whole.value:.0f} times as fast")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

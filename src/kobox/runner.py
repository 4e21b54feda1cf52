"""One module's whole life as a report: boot, load with what it needs, log, unload, what was left. Part of the front
door."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kobox.errors import Errno, GuestError, UsageError

if TYPE_CHECKING:
    from kobox.box import Kernel
    from kobox.kernel.records import Autoload
    from kobox.ko import KernelModule

_RELEASE = re.compile(r"^\S+")


class Choice(NamedTuple):
    """Which kernel serves, and why."""

    image: str
    why: str


class RunReport(NamedTuple):
    """What ``kobox run`` found. ``result`` is 0 or a positive errno; ``unloaded`` None where unloading was not due."""

    module: str
    image: str
    why_image: str
    cpu: str
    result: int
    errno_name: str | None
    reason: str
    dependencies: tuple[str, ...]
    parameters: dict[str, str]
    log: tuple[tuple[float, int, str], ...]
    tainted: int
    steps: tuple[tuple[str, float], ...]
    stubs: tuple[str, ...]
    leaks: tuple[dict[str, Any], ...]
    oops: dict[str, Any] | None
    unloaded: bool | None
    permanent: bool
    seconds: float
    oops_text: str = ""
    memory: tuple[dict[str, Any], ...] = ()
    """What the memory checker found besides leaks: overruns, writes after free, double and invalid frees."""
    unwatched: tuple[str, ...] = ()
    """The kernel's functions whose frees the memory checker could not see: a leak may be none."""
    autoloaded: tuple[Autoload, ...] = ()
    """What the kernel asked modprobe for while the module was loaded and worked."""

    @property
    def ok(self) -> bool:
        """Loaded, unloaded (unless permanent), nothing leaked or misused, no oops."""
        misused = bool(self.leaks or self.memory)
        return self.result == 0 and self.unloaded is not False and not misused and self.oops is None

    def as_data(self) -> dict[str, Any]:
        """The JSON of ``kobox run --json``."""
        return {
            "module": self.module,
            "image": self.image,
            "why_image": self.why_image,
            "cpu": self.cpu,
            "result": self.result,
            "errno_name": self.errno_name,
            "reason": self.reason,
            "dependencies": list(self.dependencies),
            "parameters": self.parameters,
            "log": [{"time": when, "level": level, "text": text} for when, level, text in self.log],
            "tainted": self.tainted,
            "steps": [{"name": name, "ms": round(ms, 3)} for name, ms in self.steps],
            "stubs": list(self.stubs),
            "leaks": list(self.leaks),
            "memory": list(self.memory),
            "unwatched": list(self.unwatched),
            "autoloaded": [request.as_data() for request in self.autoloaded],
            "oops": self.oops,
            "unloaded": self.unloaded,
            "permanent": self.permanent,
            "seconds": round(self.seconds, 3),
        }


def choose_image(module: KernelModule, wanted: str | None) -> Choice:
    """``--image``; else an added image of the module's own release; else this host's kernel; else bare."""
    if wanted is not None:
        return Choice(wanted, "asked for by --image")
    from kobox.image import find_image

    match = _RELEASE.match(module.modinfo.get("vermagic") or "")
    release = match[0] if match else ""
    if release and find_image(release) is not None:
        return Choice(release, "the added image of the module's own release")
    host = Path(f"/boot/vmlinuz-{release}")
    if release and os.access(host, os.R_OK):
        return Choice(str(host), "this host's kernel of the module's own release")
    return Choice("bare", f"no image of release {release or '(none in the file)'} is added; kobox kernel add --debian")


@dataclass(slots=True)
class _Run:
    """The state of one run while it goes on."""

    kernel: Kernel
    module: KernelModule
    choice: Choice
    start: float = field(default_factory=time.monotonic)
    loaded: list[str] = field(default_factory=list)


def run_module(
    path: str | os.PathLike[str],
    parameters: Iterable[str] = (),
    *,
    image: str | None = None,
    root: str | None = None,
    append: str = "",
    cpu: str = "qemu64",
    loader: str = "kobox",
    progress: Callable[[str], None] | None = None,
) -> RunReport:
    """Load ``path`` with its dependencies into a fresh kernel, unload everything again, and report.

    ``parameters`` are ``name=value`` texts. ``root`` is a tree whose ``lib/modules`` has the dependencies; without it
    the image's own modules and the module's folder are searched. Where it has modules of the kernel's release, it also
    answers the kernel's own requests for modules.
    """
    from kobox.box import boot
    from kobox.ko import read_module

    module = read_module(path)
    choice = choose_image(module, image)
    with boot(choice.image, append=append, cpu=cpu, loader=loader, progress=progress) as kernel:
        return run_in(kernel, path, parameters, root=root, why=choice.why)


def run_in(
    kernel: Kernel,
    path: str | os.PathLike[str],
    parameters: Iterable[str] = (),
    *,
    root: str | None = None,
    why: str = "the running kernel",
) -> RunReport:
    """The same in a kernel that runs already; what it logged before is part of the report, so give a pristine one."""
    from kobox.ko import read_module

    if root is not None:
        kernel.use_root(root)
    run = _Run(kernel, read_module(path), Choice(kernel.release, why))
    finder = Finder(Path(path).parent, [Path(root)] if root else [], kernel.modules_folder)
    return _life(run, finder, " ".join(parameters))


def _life(run: _Run, finder: Finder, parameters: str) -> RunReport:
    kernel, module = run.kernel, run.module
    reason, result, unloaded, permanent = "", 0, None, False
    values: dict[str, str] = {}
    steps: tuple[tuple[str, float], ...] = ()
    try:
        for dependency in finder.in_order(module):
            run.loaded.append(kernel.insmod(dependency).name)
        kernel.init_module(bytes(module.data), parameters)
        record = kernel.module(module.name).record
        permanent = record.permanent
        values = dict(kernel.module(module.name).parameters.readable())
        kernel.sleep(0.02)  # let work and timers that init queued run once
    except Errno as refusal:
        result, reason = refusal.number, kernel.explain_last_load() or refusal.why
    except GuestError as death:
        reason = str(death)
    else:
        unloaded = None if permanent else _unload(run)
    if kernel.last_load is not None:
        steps = tuple((step.name, step.ms) for step in kernel.last_load.trace)
    leaks = kernel.leaks()
    memory = tuple(fault for fault in kernel.memory_reports() if fault["kind"] != "leak")
    log = tuple((record.time / 1e9, record.level, record.text) for record in kernel.dmesg())
    text, oops = first_oops([line for _, _, line in log], [module.file])
    if oops is not None and result == 0 and not reason:
        reason = oops["title"]
    return RunReport(
        module=module.name, image=kernel.release, why_image=run.choice.why, cpu=kernel.cpu_name, result=result,
        errno_name=_errno_name(result), reason=reason, dependencies=tuple(run.loaded), parameters=values, log=log,
        tainted=kernel.tainted, steps=steps, stubs=kernel.stubs_hit(), leaks=leaks, oops=oops, unloaded=unloaded,
        permanent=permanent, seconds=time.monotonic() - run.start, oops_text=text, memory=memory,
        unwatched=tuple(kernel.heap.unwatched) if leaks else (), autoloaded=tuple(kernel.autoloaded),
    )  # fmt: skip


def _unload(run: _Run) -> bool:
    try:
        run.kernel.rmmod(run.module.name)
        for name in reversed(run.loaded):
            run.kernel.rmmod(name)
    except (Errno, GuestError):
        return False
    return True


def first_oops(log: Sequence[str], files: Iterable[str | Path]) -> tuple[str, dict[str, Any] | None]:
    """The first crash in the lines of a log, decoded with the debug data of these module files: as text for people, and
    as data. Empty and None where there is none."""
    if not any("end trace" in text or "soft lockup" in text for text in log):
        return "", None
    from kobox.debug.parse import parse_log
    from kobox.debug.report import as_data, make_report, render
    from kobox.debug.sources import Sources

    found = parse_log("\n".join(log))
    if not found:
        return "", None
    report = make_report(found[0], Sources.of_files(files, []))
    return render(report), as_data(report)


def _errno_name(number: int) -> str | None:
    from kobox.abi.errno_names import name_of

    return name_of(number) if number else None


class Finder:
    """Finds the files of the modules that a module depends on: beside it, in the given roots, in the image's tree."""

    def __init__(self, beside: Path, roots: list[Path], tree: Path | None) -> None:
        self._beside = beside
        self._trees = [folder for root in roots for folder in _module_folders(root)]
        if tree is not None:
            self._trees.append(tree)
        self._index: dict[str, Path] | None = None

    def in_order(self, module: KernelModule) -> list[Path]:
        """Every module it needs, each after what it needs itself."""
        from kobox.ko import read_module

        order: list[Path] = []
        seen = {module.name}

        def visit(names: Iterable[str]) -> None:
            for name in names:
                plain = name.replace("-", "_")
                if plain in seen:
                    continue
                seen.add(plain)
                path = self.find(plain)
                visit(read_module(path).depends)
                order.append(path)

        visit(module.depends)
        return order

    def find(self, name: str) -> Path:
        """The file of a module by name."""
        from kobox.depot.names import MODULE_SUFFIXES, is_module_file, module_name

        for spelled in (name, name.replace("_", "-")):
            for suffix in MODULE_SUFFIXES:
                candidate = self._beside / f"{spelled}{suffix}"
                if candidate.is_file():
                    return candidate
        if self._index is None:
            self._index = {}
            for tree in self._trees:
                for folder, _, files in os.walk(tree):
                    for file in files:
                        if is_module_file(file):
                            self._index.setdefault(module_name(file), Path(folder, file))
        if name not in self._index:
            places = ", ".join(str(place) for place in [self._beside, *self._trees])
            raise UsageError(f"module {name}, which is needed, was not found in {places}", hint="--root DIR")
        return self._index[name]


def _module_folders(root: Path) -> list[Path]:
    return [place for base in ("lib/modules", "usr/lib/modules") if (place := root / base).is_dir()]

"""From what ``kobox boot`` was asked for to a kernel with its modules loaded: part of the server process.

What modules-load.d of the root and ``modules_load=`` of the command line name is loaded as systemd does it: through
modprobe's rules, blacklists included. What cannot be loaded is told and is no failure of the boot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kobox.depot.kernel_target import KernelTarget
from kobox.depot.modules_load import boot_modules
from kobox.depot.systems import open_system
from kobox.depot.targets import How, insert
from kobox.depot.tree import MODULE_DIRECTORIES, releases
from kobox.errors import BadFile, KoboxError, UsageError
from kobox.session import saved

if TYPE_CHECKING:
    from kobox.bare.kernel import BareKernel
    from kobox.box import Kernel

    AnyKernel = Kernel | BareKernel

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BootPlan:
    """What a session is asked to be. ``image`` None: of the root, else the newest added one. Paths are absolute.

    ``restore`` is the folder of a saved session to take up at first; a reboot is a fresh kernel of the other options.
    """

    image: str | None = None
    append: str = ""
    root: str | None = None
    cpu: str = "qemu64"
    seed: int | None = None
    restore: str | None = None
    coldplug: bool = False
    """Load the modules of the devices that are there, and of those that come, as udev does."""
    variables: str | None = None
    """The directory of a machine with UEFI; None: it has a BIOS."""

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> BootPlan:
        return cls(**data)


class Started(NamedTuple):
    """A kernel, which modules were loaded at boot, and what could not be.

    ``uevents``: the descriptor in the guest that an earlier server heard uevents with, or -1.
    """

    kernel: AnyKernel
    loaded: tuple[str, ...]
    complaints: tuple[str, ...]
    uevents: int = -1


def check(plan: BootPlan) -> None:
    """Refuse, before anything is booted, what can be seen to be wrong."""
    if plan.root is not None and not os.path.isdir(plan.root):
        raise UsageError(f"{plan.root}: no such directory")


def start(plan: BootPlan, progress: Progress) -> Started:
    """Boot, and load what the root's lists name."""
    from kobox.box import boot

    check(plan)
    image = image_of(plan)
    kernel: AnyKernel = boot(
        image, append=plan.append, cpu=plan.cpu, seed=plan.seed, variables=plan.variables, progress=progress
    )
    if plan.root is not None:
        kernel.use_root(plan.root)
    try:
        if plan.coldplug:
            progress("coldplug")
            kernel.coldplug()
        loaded, complaints = _load_boot_modules(kernel, plan, progress)
    except BaseException:
        kernel.close()
        raise
    return Started(kernel, loaded, complaints)


def resume(plan: BootPlan, progress: Progress) -> Started:
    """Take up the saved session that the plan names."""
    from kobox import box

    assert plan.restore is not None
    state = saved.read(Path(plan.restore))
    progress(f"restoring {state.name}")
    try:
        saved.check_key(state, box.saved_key(state.kernel, state.image))
        kernel = box.resume(state.kernel, state.image, progress)
        if root := state.options.get("root"):
            kernel.use_root(root)
        return Started(kernel, (), (), state.uevents)
    except (OSError, ValueError, KeyError) as error:
        raise BadFile(str(state.kernel), "", "is no saved kernel", hint=f"damaged: {error}") from error


def modules_folder(kernel: AnyKernel, plan: BootPlan) -> Path | None:
    """Where the session's modules are: in its root, else beside its image."""
    if plan.root is None:
        return kernel.modules_folder
    places = [Path(plan.root) / folder / kernel.release for folder in MODULE_DIRECTORIES]
    return next((place for place in places if place.is_dir()), places[0])


def image_of(plan: BootPlan) -> str | None:
    """What is booted: the image that was asked for, else a root that holds a kernel, else (None) the newest added."""
    if plan.image is None and plan.root is not None and any((Path(plan.root) / "boot").glob("vmlinuz-*")):
        return plan.root
    return plan.image


def _load_boot_modules(
    kernel: AnyKernel, plan: BootPlan, progress: Progress
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    wanted = boot_modules(plan.root, plan.append) if plan.root is not None else []
    if not wanted:
        return (), ()
    assert plan.root is not None
    if kernel.release not in releases(plan.root):
        found = ", ".join(releases(plan.root)) or "none"
        raise UsageError(
            f"{plan.root}: has no modules of kernel {kernel.release}; found: {found}", "another --image or --root"
        )
    system = open_system(plan.root, kernel.release, plan.append)
    resolver, target = system.resolver(), KernelTarget(kernel)
    loaded: list[str] = []
    complaints: list[str] = []
    for module in wanted:
        progress(f"loading {module.name}")
        said: list[str] = []
        how = How(None, lambda level, text, said=said: said.append(text))  # type: ignore[misc]  # binds this turn's list
        plans = resolver.insert(module.name, use_blacklist=True)
        refused = next((probe.refused for probe in plans.probes if probe.refused is not None), None)
        try:
            result = insert(plans, target, how) if plans.probes else None
        except KoboxError as error:
            complaints.append(f"{module.name} ({module.place}): {error}")
            continue
        if result is None:
            complaints.append(f"{module.name} ({module.place}): no module has that name in {plans.directory}")
        elif refused is not None:
            complaints.append(f"{module.name} ({module.place}): {refused}")
        elif result < 0:
            complaints.append(f"{module.name} ({module.place}): {'; '.join(said) or os.strerror(-result)}")
        else:
            loaded.append(module.name)
    return tuple(loaded), tuple(complaints)

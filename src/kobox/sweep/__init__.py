"""``kobox sweep``: every module of a tree loaded and unloaded on a booted kernel, each in a fresh state, and what came
of it.

``plan``: what, and in which order; ``life``: one module; ``inventory``: what a kernel shows; ``pool`` and ``cluster``:
where the work is done; ``text``, ``page`` and ``junit``: renderings of the records.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from kobox.box import BARE, boot
from kobox.errors import UsageError
from kobox.sweep.cluster import sweep_in_cluster
from kobox.sweep.life import Shared
from kobox.sweep.plan import find_tree, forget_known, indexed, items_of, portions, processors
from kobox.sweep.pool import Setup, sweep_here, sweep_in_processes
from kobox.sweep.records import ModuleResult, SweepReport


class SweepOptions(NamedTuple):
    """``image`` as ``kobox.boot`` takes it; ``root``: a tree instead of the image's own modules; ``select``: patterns
    of names or paths, none for all; ``jobs``: processes, 0 for one a CPU (of a cluster: portions for so many)."""

    image: str | None = None
    root: str | None = None
    select: tuple[str, ...] = ()
    jobs: int = 0
    append: str = ""
    cluster: str = ""
    """Address of a Dask scheduler whose workers do the work, instead of processes here."""


Progress = Callable[[str], None]
Seen = Callable[[ModuleResult, int, int], None]


def sweep(
    options: SweepOptions,
    progress: Progress = lambda text: None,
    seen: Seen = lambda result, done, total: None,
) -> SweepReport:
    """Sweep. ``seen`` is called with each result as it comes, how many are done, and how many there are."""
    start = time.monotonic()
    if options.jobs < 0:
        raise UsageError(f"--jobs {options.jobs}: a number of processes from 1 on, or 0 for one a CPU")
    with boot(options.image, append=options.append, progress=progress) as kernel:
        release, cpu, own = kernel.release, kernel.cpu_name, kernel.modules_folder
    folder = find_tree(options.root, release, own)
    results = []
    with indexed(folder) as tree:
        items = items_of(tree, options.select)
        jobs = min(options.jobs or processors(), len(items))
        asked = None if options.image == BARE else options.root  # the bare kernel asks for no modules
        setup = Setup(options.image or release, asked, options.append, str(folder), Shared.of(items))
        pieces = portions(items, jobs)
        if options.cluster:
            run = sweep_in_cluster(setup, pieces, options.cluster)
        else:
            run = sweep_here(setup, pieces) if jobs == 1 else sweep_in_processes(setup, pieces, jobs)
        for result in run:
            results.append(result)
            seen(result, len(results), len(items))
        forget_known(results, tree)
    results.sort(key=lambda result: result.path)
    return SweepReport(release, cpu, str(folder), jobs, time.monotonic() - start, tuple(results))


__all__ = ["ModuleResult", "SweepOptions", "SweepReport", "sweep"]

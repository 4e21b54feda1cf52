"""The work of a sweep on the machines of a Dask cluster: pieces go to its scheduler, results come back as they are
ready.

Dask starts a piece again elsewhere when its worker dies. Where it gives up, since every worker that took the piece
died, the piece is halved until the module that does it is alone. Workers need kobox, the image under the same name, and
the tree at the same place.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from kobox.errors import NotModelled, UsageError
from kobox.sweep.life import Bench
from kobox.sweep.pool import Setup
from kobox.sweep.records import Item, ModuleResult

_CONNECT_SECONDS = 10
_own = threading.local()
"""Of a worker's thread: the bench that its pieces share."""


def sweep_in_cluster(setup: Setup, pieces: Sequence[Sequence[Item]], address: str) -> Iterator[ModuleResult]:
    """The work on the workers of the scheduler at ``address`` (``host:port`` or ``tcp://host:port``)."""
    distributed = _library()
    try:
        client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"--cluster {address}: no Dask scheduler answers: {error}") from error
    with client:
        futures = {_submit(client, setup, list(piece)): list(piece) for piece in pieces}
        ready = distributed.as_completed(list(futures), loop=client.loop)
        for future in ready:
            piece = futures.pop(future)
            try:
                results = future.result()
            except distributed.KilledWorker as death:
                if len(piece) == 1:
                    yield ModuleResult(*piece[0], error=f"every worker that swept it ended: {death}")
                    continue
                for half in (piece[: len(piece) // 2], piece[len(piece) // 2 :]):
                    again = _submit(client, setup, half)
                    futures[again] = half
                    ready.add(again)
                continue
            yield from results


def _submit(client: Any, setup: Setup, piece: list[Item]) -> Any:
    return client.submit(sweep_piece, setup, piece, pure=False)


def sweep_piece(setup: Setup, piece: list[Item]) -> list[ModuleResult]:
    """What a worker does. A thread keeps its kernel for the next piece of the same sweep."""
    results = []
    for item in piece:
        bench = _bench(setup)
        results.append(bench.sweep(item))
        if results[-1].error:
            _forget()
    return results


def _bench(setup: Setup) -> Bench:
    if getattr(_own, "setup", None) != setup:
        _forget()
        _own.bench, _own.setup = setup.bench(), setup
    bench: Bench = _own.bench
    return bench


def _forget() -> None:
    """The next module gets a new kernel."""
    if getattr(_own, "setup", None) is not None:
        _own.setup = None
        _own.bench.close()


def _library() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise NotModelled(
            "--cluster needs Dask, which is not installed", hint="pip install 'kobox[cluster]'"
        ) from error

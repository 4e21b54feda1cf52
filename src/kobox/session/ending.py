"""Ending sessions, those included whose servers were killed or speak another version."""

from __future__ import annotations

import os
import signal
import time

from kobox.errors import KoboxError
from kobox.session.client import RemoteKernel
from kobox.session.places import API, Place, place_of, places, remove, the_session

_PATIENCE = 10.0


def halt(name: str | None) -> str:
    """End a session, or clear away what a killed one left; its name."""
    left = place_of(name) if name is not None else None
    place = left if left is not None and not left.alive else the_session(name)
    _end(place)
    return place.name


def halt_all() -> list[str]:
    """End every session there is; their names."""
    found = places()
    for place in found:
        _end(place)
    return [place.name for place in found]


def _end(place: Place) -> None:
    if not place.alive:
        remove(place.folder)
        return
    if place.about.get("api") == API:
        with RemoteKernel(place) as kernel:
            kernel.halt()
    elif place.pid:
        os.kill(place.pid, signal.SIGTERM)  # a booting one has no API yet, another version's is not spoken here
    limit = time.monotonic() + _PATIENCE
    while (now := place_of(place.name)) is not None and now.alive and now.pid == place.pid:
        if time.monotonic() > limit:
            raise KoboxError(f"session {place.name!r} does not end", f"kill -9 {place.pid}")
        time.sleep(0.005)

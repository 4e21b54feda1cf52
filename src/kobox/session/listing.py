"""All sessions at a glance: what each server says of itself, and what can be said of those that do not answer."""

from __future__ import annotations

from typing import Any

from kobox.errors import KoboxError
from kobox.session.client import RemoteKernel
from kobox.session.places import ABOUT, Place, places


def sessions() -> list[dict[str, Any]]:
    """One record a session, as ``GET /v1/info`` gives it, with its ``state``.

    ``ready``, ``busy`` (a call runs), ``dead`` (the kernel has stopped), ``booting``, ``gone`` (the server was killed),
    or ``other`` (a server of another kobox, whose API this one does not speak).
    """
    return [_record(place) for place in places()]


def _record(place: Place) -> dict[str, Any]:
    known = place.about | {"name": place.name, "folder": str(place.folder)}
    if not place.alive:
        return known | {"state": "gone"}
    if not (place.folder / ABOUT).exists():
        return known | {"state": "booting"}
    try:
        with RemoteKernel(place) as kernel:
            about = kernel.info()
    except KoboxError as error:
        return known | {"state": "other", "why": str(error)}
    state = "dead" if about["dead"] else "busy" if about["running"] else "ready"
    return known | about | {"state": state}

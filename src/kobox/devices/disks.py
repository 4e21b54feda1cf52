"""Live disks: a file of the host, or a Python object, as a virtio disk of a kernel that runs."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from kobox.devices.backing import SECTOR, Backing, FileBacking, MemoryBacking
from kobox.devices.plug import Plugged, Plugger
from kobox.devices.virtio_block import VirtioBlock
from kobox.errors import KoboxError, UsageError

_CHUNK = 4 << 20


class LiveDisk:
    """A disk that is there. ``device`` is its node, ``partitions`` those of what the kernel found on it, ``plugged``
    how it came; a context manager: it is detached at the end."""

    def __init__(self, plugger: Plugger, plugged: Plugged, backing: Backing) -> None:
        self._plugger, self.plugged, self.backing = plugger, plugged, backing
        disks = [node for node in plugged.nodes if node.startswith("/dev/vd")]
        if not disks:
            said = "; ".join(text for hop in plugged.hops for text in hop.said)
            raise KoboxError("no driver has made a block device of the disk", said or "virtio_pci and virtio_blk do it")
        self.device, *partitions = disks
        self.partitions = tuple(partitions)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def data(self) -> bytes:
        """What the backing holds now; what only the guest's cache holds is not in it (``sync``, or unmount)."""
        size = self.backing.size
        return b"".join(bytes(self.backing.read(at, min(_CHUNK, size - at))) for at in range(0, size, _CHUNK))

    def detach(self) -> None:
        """Take the disk away, and have on the host's disk what was written to it."""
        if isinstance(self.plugged.model, VirtioBlock) and self.plugged.model.board is None:
            return  # gone already, or a reset has taken it away
        self._plugger.unplug(self.plugged)
        self.backing.flush()


def attach_live(plugger: Plugger, image: bytes | str | os.PathLike[str] | Backing, read_only: bool = False) -> LiveDisk:
    """Plug a disk in whose contents are a file, bytes (a copy of them), or a backing's."""
    if isinstance(image, bytes):
        backing: Backing = MemoryBacking(image)
    elif isinstance(image, str | os.PathLike):
        backing = _open(image, read_only)
    elif isinstance(image, Backing):
        backing = image
    else:
        raise UsageError(f"{type(image).__name__} is no disk: size, read, write and flush are needed")
    if backing.size < SECTOR:
        raise UsageError(f"a disk of {backing.size} bytes, at least {SECTOR} expected")
    return LiveDisk(plugger, plugger.plug(VirtioBlock(backing, read_only=read_only)), backing)


def _open(path: str | os.PathLike[str], read_only: bool) -> FileBacking:
    try:
        return FileBacking(path, read_only)
    except OSError as error:
        raise UsageError(f"{os.fspath(path)}: {error.strerror}") from error

"""What ``-o`` takes, as mount(8) does: words for the host, flags of mount(2), and the rest for the file system."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

MS_RDONLY = 1
_FLAGS = {
    "sync": 1 << 4, "dirsync": 1 << 7, "noatime": 1 << 10, "nodiratime": 1 << 11, "relatime": 1 << 21,
    "strictatime": 1 << 24, "lazytime": 1 << 25,
}  # fmt: skip
"""Of the guest's mount(2) (include/uapi/linux/mount.h)."""
_HOST = frozenset({"allow_other", "suid", "dev", "noexec", "default_permissions"})
_USUAL = frozenset({"nosuid", "nodev", "exec", "rw", "defaults", "loop", "user", "auto", "noauto", "nofail", "_netdev"})
"""What is so anyway, or concerns others."""


@dataclass(frozen=True, slots=True)
class MountPlan:
    """What ``kobox mount`` was asked for. Paths are absolute; ``kind`` None: as the disk's marks say; ``release`` None:
    the newest kernel that was added."""

    image: str
    folder: str
    kind: str | None = None
    options: tuple[str, ...] = ()
    read_only: bool = False
    partition: int | None = None
    offset: int = 0
    release: str | None = None

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> MountPlan:
        return cls(**{**data, "options": tuple(data["options"])})

    @property
    def host_words(self) -> frozenset[str]:
        """Options that the host's mount heeds."""
        return frozenset(self.options) & _HOST

    @property
    def guest_flags(self) -> int:
        """Of the guest's mount(2), but for MS_RDONLY."""
        flags = 0
        for word in self.options:
            flags |= _FLAGS.get(word, 0)
        return flags

    @property
    def guest_data(self) -> str:
        """What the file system itself is told."""
        return ",".join(word for word in self.options if word not in _HOST | _USUAL | {"ro"} and word not in _FLAGS)


def split_options(texts: Iterable[str]) -> tuple[str, ...]:
    """``-o a,b -o c``."""
    return tuple(word for text in texts for word in text.split(",") if word)

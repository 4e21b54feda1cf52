"""What can stand in the place of a placeholder of the help (``REL``, ``FILE.ko``, ``MODULE`` …): for completion.

Each kind of value is read from where it is kept, without opening an image or booting anything. What cannot be read
gives no words: completion never complains.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kobox.errors import KoboxError


class Asked(NamedTuple):
    """The line so far: options given with their values (the last of each), operands, and the word being typed."""

    options: dict[str, str]
    operands: Sequence[str]
    current: str = ""

    def first(self, *names: str) -> str | None:
        """The value of the first of these options that was given."""
        return next((self.options[name] for name in names if name in self.options), None)

    @property
    def root(self) -> str:
        """The system that the line is about; empty for this host."""
        root = self.first("--root", "--dirname", "--basedir") or ""
        return os.path.expanduser(root).rstrip("/")


Words = Iterable[tuple[str, str]]
"""A word and what it is."""


def values(placeholder: str, asked: Asked) -> tuple[str, list[tuple[str, str]]]:
    """What a placeholder stands for: which files (``files``, ``dirs``, ``modules`` or nothing), and words with what
    they are. ``A|B`` is either."""
    files, words = "", []
    for part in placeholder.split("|"):
        files = files or _FILES.get(part, "")
        source = _WORDS.get(part)
        if source is not None:
            words += _read(source, asked)
    return files, words


def _read(source: Callable[[Asked], Words], asked: Asked) -> list[tuple[str, str]]:
    try:
        return sorted(source(asked))
    except (KoboxError, OSError):
        return []


_FILES = {
    "DIR": "dirs", "ROOT": "dirs", "FILE": "files", "PATH": "files", "IMAGE": "files", "CERT": "files",
    "FILE.ko": "modules", "X.ko": "modules",
}  # fmt: skip


def _images(asked: Asked) -> Iterator[tuple[str, str]]:
    from kobox.image.store import list_images

    for added in list_images():
        yield added.release, added.source


def _images_and_bare(asked: Asked) -> Iterator[tuple[str, str]]:
    yield from _images(asked)
    yield "bare", "the built-in kernel that needs no image"


def _releases(asked: Asked) -> Iterator[tuple[str, str]]:
    for folder in _release_folders(asked.root):
        yield folder.name, str(folder)


def _release_folders(root: str) -> Iterator[Path]:
    seen = set()
    for place in ("lib/modules", "usr/lib/modules"):
        for folder in Path(f"{root}/{place}").glob("*/"):
            if folder.name not in seen:
                seen.add(folder.name)
                yield folder


def module_paths(asked: Asked) -> dict[str, Path]:
    """Files of the system's modules by name, as its ``modules.dep`` lists them: of a root, of the session that runs, or
    of this host."""
    of_session = None if asked.root or "--live" in asked.options else _folder_of_session(asked)
    folders = {folder.name: folder for folder in _release_folders(asked.root)}
    wanted = asked.first("--set-version") or os.uname().release
    only = next(iter(folders.values())) if len(folders) == 1 else None
    folder = of_session or folders.get(wanted) or only
    if folder is None:
        return {}
    with open(_indexes_of(folder, of_session) / "modules.dep", encoding="utf-8", errors="surrogateescape") as file:
        paths = [folder / line.partition(":")[0] for line in file if ":" in line]
    return {_name_of(path): path for path in paths}


def _indexes_of(folder: Path, of_session: Path | None) -> Path:
    """Where a tree's indexes are; those of a session may be in the cache."""
    if folder != of_session or (folder / "modules.dep").exists():
        return folder
    from kobox.depot.tree import ModuleTree
    from kobox.kernel.module_source import with_index

    return Path(with_index(ModuleTree.at(folder)).indexes)


def _folder_of_session(asked: Asked) -> Path | None:
    """The module tree of the session that the line is about; None where that is not clear."""
    from kobox.session.places import choose

    try:
        place = choose(asked.first("--session"))
    except KoboxError:
        return None
    folder = place.about.get("modules_folder") if place is not None else None
    return Path(folder) if folder else None


def _name_of(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def _modules(asked: Asked) -> Iterator[tuple[str, str]]:
    return ((name, str(path.parent.name)) for name, path in module_paths(asked).items())


def _loaded(asked: Asked) -> Iterator[tuple[str, str]]:
    if asked.root or "--live" in asked.options:
        with open(f"{asked.root}/proc/modules", encoding="utf-8") as file:
            yield from ((line.split()[0], "loaded") for line in file)
        return
    from kobox.session.client import connect

    with connect(asked.first("--session")) as kernel:
        yield from ((record.name, "loaded") for record in kernel.modules)


def _parameters(asked: Asked) -> Iterator[tuple[str, str]]:
    """``name=`` for each parameter of the module that the line names first."""
    if not asked.operands:
        return
    from kobox.ko import read_module

    named = asked.operands[0]
    file = Path(os.path.expanduser(named))
    path = file if file.is_file() else module_paths(asked).get(named.replace("-", "_"))
    if path is not None:
        for param in read_module(path).params:
            yield f"{param.name}=", param.description or param.type or ""


def _cpu_models(asked: Asked) -> Iterator[tuple[str, str]]:
    import kobox

    for file in (Path(kobox.__file__).parent / "machine/cpus").glob("*.json"):
        yield file.stem, "CPU model"


def _sessions(asked: Asked) -> Iterator[tuple[str, str]]:
    from kobox.session.places import places

    return ((place.name, str(place.about.get("release", ""))) for place in places() if place.alive)


def _states(asked: Asked) -> Iterator[tuple[str, str]]:
    from kobox.session.saved import saved_states

    return ((state.name, state.release) for state in saved_states())


def _guest_paths(asked: Asked) -> Iterator[tuple[str, str]]:
    """Entries of the folder that is being typed, as the session's kernel lists it."""
    from kobox.session.client import connect

    folder = asked.current.rpartition("/")[0] + "/"
    with connect(asked.first("--session")) as kernel:
        for entry in kernel.ls(folder):
            is_folder = entry.kind == "dir"
            yield f"{folder}{entry.name}{'/' * is_folder}", entry.kind


def _profiles(asked: Asked) -> Iterator[tuple[str, str]]:
    from kobox.audit.profiles import built_in_profiles

    return ((name, "profile") for name in built_in_profiles())


def _commands(asked: Asked) -> Iterator[tuple[str, str]]:
    from kobox.cli.table import COMMANDS

    return ((name, command.help) for name, command in COMMANDS.items())


def _mounted(asked: Asked) -> Words:
    """Folders that images are mounted on."""
    from kobox.mount.mounts import image_mounts

    return ((mount.folder, mount.image) for mount in image_mounts())


def _file_systems(asked: Asked) -> Words:
    from kobox.mount.probe import KINDS

    return ((kind, "file system") for kind in KINDS)


_INFO_FIELDS = (
    "alias", "author", "depends", "description", "filename", "firmware", "intree", "license", "name", "parm",
    "softdep", "srcversion", "vermagic", "version",
)  # fmt: skip


_WORDS: dict[str, Callable[[Asked], Words]] = {
    "R": _images_and_bare,
    "RELEASE": _images,
    "REL": _releases,
    "OLD": _releases,
    "NEW": _releases,
    "MODULE": _modules,
    "NAME": _modules,
    "LOADED": _loaded,
    "name=value": _parameters,
    "PARAMETER=VALUE": _parameters,
    "MODEL": _cpu_models,
    "PROFILE": _profiles,
    "GUEST-PATH": _guest_paths,
    "SESSION": _sessions,
    "STATE": _states,
    "COMMAND": _commands,
    "MOUNTED": _mounted,
    "TYPE": _file_systems,
    "FIELD": lambda asked: ((name, "field of modinfo") for name in _INFO_FIELDS),
}
"""By placeholder. One that is in neither table takes any text."""

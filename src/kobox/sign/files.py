"""Module files that are signed, stripped or given a signature that was made elsewhere; many at once.

A file is read whole, changed in memory, written beside its place and renamed, so that nobody ever meets half a module.
Compressed files are unpacked, changed and packed again the same way: the signature lies inside, where the kernel looks
for it.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kobox.errors import BadFile, KoboxError
from kobox.ko import compress, decompress, format_of, split_signature
from kobox.ko.signature import PKEY_ID_PKCS7
from kobox.sign.keys import Buffer
from kobox.sign.signing import Signer, append

Change = Callable[[Buffer, str], "Changed"]
"""What to do with a module's unpacked bytes; the second argument is what errors call the file."""


class Changed(NamedTuple):
    """``data`` None: the file stays as it is. ``message`` is the signature that was made or found."""

    data: bytes | None
    what: str
    message: bytes = b""


class Outcome(NamedTuple):
    """What became of one file. ``error`` is empty where it went well."""

    file: str
    what: str = ""
    error: str = ""
    message: bytes = b""


def signing(signer: Signer, *, keep: bool = False) -> Change:
    """Sign; a signature that is there is replaced, or with ``keep`` signed along as sign-file does it."""

    def change(data: Buffer, file: str) -> Changed:
        body, trailer = split_signature(data)
        content = data if keep else body
        message = signer.sign(content)
        return Changed(append(content, message), "signed" if keep or trailer is None else "signed again", message)

    return change


def making(signer: Signer) -> Change:
    """Make the message only."""
    return lambda data, file: Changed(None, "signature made", signer.sign(data))


def attaching(message: bytes) -> Change:
    """Append a message that was made elsewhere."""
    return lambda data, file: Changed(append(data, message), "signature attached", message)


def stripping(data: Buffer, file: str) -> Changed:
    """Take the signature away."""
    body, trailer = split_signature(data)
    if trailer is None:
        return Changed(None, "was not signed")
    if trailer.id_type != PKEY_ID_PKCS7 or not trailer.message:
        raise BadFile(file, "signature", "; ".join(trailer.problems), hint="its length cannot be known")
    return Changed(bytes(body), "stripped", trailer.message)


def change_file(path: str, change: Change, destination: str | None = None) -> Outcome:
    """Change one file, in place or into ``destination``."""
    packed = Path(path).read_bytes()
    kind = format_of(packed)
    changed = change(memoryview(decompress(packed, path)), path)
    if changed.data is not None:
        write_anew(destination or path, compress(changed.data, kind) if kind else changed.data, like=path)
    elif destination is not None:
        write_anew(destination, packed, like=path)
    return Outcome(path, changed.what, message=changed.message)


def change_files(paths: Sequence[str], change: Change, jobs: int = 0) -> Iterator[Outcome]:
    """Change many files in place, in threads (what costs time is done without Python's lock): outcomes in the order of
    the files, errors among them."""

    def one(path: str) -> Outcome:
        try:
            return change_file(path, change)
        except OSError as error:
            return Outcome(path, error=f"{path}: {error.strerror or error}")
        except KoboxError as error:
            return Outcome(path, error=str(error))

    if len(paths) == 1:
        yield one(paths[0])
        return
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        yield from pool.map(one, paths)


def write_anew(path: str, data: bytes, like: str | None = None, mode: int = 0o644) -> None:
    """Put ``data`` where ``path`` is, whole or not at all; mode (and owner, if it may) of ``like``."""
    target = os.path.realpath(path)
    handle, beside = tempfile.mkstemp(prefix=f".{os.path.basename(target)}.", dir=os.path.dirname(target))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if like is None:
                os.fchmod(file.fileno(), mode)
            else:
                found = os.stat(like)
                with suppress(PermissionError):
                    os.fchown(file.fileno(), found.st_uid, found.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise


def module_files(paths: Sequence[str], ending: Callable[[str], bool]) -> list[str]:
    """Files as they are named; of a directory all modules below it. ``ending`` tells a module by its name."""
    found: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            found += [os.path.join(folder, name) for name in sorted(names) if ending(name)]
    return found

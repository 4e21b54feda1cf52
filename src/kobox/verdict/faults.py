"""What is wrong with a file, in words: for each of the loader's checks, for files that are no modules at all, and for
the version magic."""

from __future__ import annotations

from collections.abc import Mapping

FAULTS = {
    "elf_header": ("not-elf", ""),
    "architecture": ("architecture", ""),
    "object_type": ("no-module", "it is no relocatable file: a program or library, not a module"),
    "first_symbol_table": ("no-symbols", "it has no symbol table: it was stripped too far"),
    "only_symbol_table": ("no-symbols", "it has no symbol table (or two): it was stripped too far"),
    "first_this_module": ("no-module", "it is an object file, but no module: it lacks .gnu.linkonce.this_module"),
    "only_this_module": (
        "struct-module-version",
        "its struct module (.gnu.linkonce.this_module) is not what this kernel has",
    ),
}
"""By the name of the check that failed: rule and sentence."""
READABLE = frozenset({"only_this_module"})
"""Checks that find a sound file not to be this kernel's: everything else in it can be judged."""


def what_it_is(body: bytes) -> str:
    """What a file that is no ELF file may be."""
    for start, what in _LOOKS_LIKE.items():
        if body.startswith(start):
            return f"it is no ELF file: {what}"
    if len(body) < 64:
        return f"it is too short for a module: {len(body)} bytes"
    return f"it is no ELF file: it starts with {body[:4].hex(' ')}"


_LOOKS_LIKE = {
    b"version https://git-lfs": "a pointer of Git LFS, whose content was not fetched",
    b"<": "it looks like a page of the web",
    b"#!": "a script",
    b"PK": "a zip archive",
    b"\xfd7zXZ": "an xz file that cannot be unpacked, cut off or damaged",
    b"\x1f\x8b": "a gzip file that cannot be unpacked, cut off or damaged",
    b"\x28\xb5\x2f\xfd": "a zstd file that cannot be unpacked, cut off or damaged",
    b"!<arch>": "a library (.a) or a Debian package",
    b"BC\xc0\xde": "LLVM bitcode",
}


def vermagic_words(module: str, kernel: str, has_crcs: bool) -> list[dict[str, str]]:
    """The words in which two vermagic texts differ, each with the side that has it. With CRCs the release is left
    out."""
    ours, theirs = module.split(), kernel.split()
    words: list[dict[str, str]] = []
    if not has_crcs and ours[:1] != theirs[:1]:
        words.append({"word": " ".join(ours[:1]), "only": "module", "place": "release"})
        words.append({"word": " ".join(theirs[:1]), "only": "kernel", "place": "release"})
    words += [{"word": word, "only": "module", "place": "option"} for word in ours[1:] if word not in theirs[1:]]
    words += [{"word": word, "only": "kernel", "place": "option"} for word in theirs[1:] if word not in ours[1:]]
    return words


def word_text(item: Mapping[str, str]) -> str:
    if item["place"] == "release":
        return f"{'its' if item['only'] == 'module' else 'the kernel'}'s release {item['word']}".replace("its's", "its")
    return f"{'the module has' if item['only'] == 'module' else 'the kernel has'} '{item['word']}'"

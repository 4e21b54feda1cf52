"""The reasons behind the refusals of ``link``'s gates: what a file's metadata lacks for this kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kobox.link import Against, LoadView, Refusal, metadata_taints
from kobox.link.policy import find_symbol, read_versions, same_magic
from kobox.verdict.faults import vermagic_words, word_text
from kobox.verdict.tally import Tally


def _blacklisted(tally: Tally, view: LoadView, kernel: Against, refusal: Refusal) -> None:
    text = f"the kernel refuses modules named {view.name}: module_blacklist={kernel.blacklist} on its command line"
    tally.refused("module-blacklist", refusal, text)


def _struct_module(tally: Tally, view: LoadView, kernel: Against, refusal: Refusal) -> None:
    versions = read_versions(view)
    if versions is None:
        text = "it has no symbol versions (__versions), and this kernel does not allow forced loading"
        tally.refused("forced-load", refusal, text)
        return
    found = find_symbol(kernel.exporters, "module_layout")
    built, here = versions.get("module_layout"), found[1].crc if found else None
    if built is None:
        text = "it has symbol versions, but none of module_layout, which every module needs"
    else:
        text = f"built for a kernel whose struct module differs: CRC of module_layout {built:#010x}, here {here:#010x}"
    tally.refused("struct-module-version", refusal, text)


def _metadata(tally: Tally, view: LoadView, kernel: Against, refusal: Refusal) -> None:
    magic = view.info("vermagic")
    if (
        magic is not None
        and not kernel.ignore_vermagic
        and not same_magic(magic, kernel.vermagic, bool(view.index.vers))
    ):
        items = vermagic_words(magic, kernel.vermagic, bool(view.index.vers))
        shown = ", ".join(word_text(item) for item in items) or "the order of its words or its blanks"
        text = f"built for another kernel: '{magic.strip()}' instead of '{kernel.vermagic.strip()}': {shown}"
        tally.refuse("vermagic", refusal.number, text, refusal.findings, items=items)
    elif view.info("livepatch") is not None and not kernel.rules.livepatch:
        tally.refused("livepatch-support", refusal, "it is a livepatch module")
    else:
        text = "it has no vermagic, and this kernel does not allow forced loading"
        tally.refused("forced-load", refusal, text)
    rest = kernel.rules._replace(livepatch=True)
    tally.say(metadata_taints(view, rest, tally.taints, spectre_v2=kernel.spectre_v2))


def _protection(tally: Tally, view: LoadView, kernel: Against, refusal: Refusal) -> None:
    tally.refused("write-exec", refusal, "a section of it is both writable and executable")


GATE_REASONS: Mapping[str, Callable[[Tally, LoadView, Against, Refusal], None]] = {
    "blacklist": _blacklisted,
    "struct module": _struct_module,
    "metadata": _metadata,
    "protection": _protection,
}
"""Who makes a reason of a gate's refusal, by the gate's name."""

"""What a kernel demands of the modules it loads, as far as its image tells: rules of its build, its exports, its keys.

Shared by the loader, which asks on behalf of a running kernel, and by whoever foretells what a kernel would answer. No
CPU, no guest.
"""

from __future__ import annotations

from kobox import link, sign
from kobox.image import Image
from kobox.link import Export, Rules

_SIZED = (
    "module", "kernel_symbol", "kernel_param", "mod_kallsyms", "alt_instr", "exception_table_entry", "orc_entry",
    "bug_entry", "jump_entry", "static_call_site", "_ddebug", "ddebug_class_map", "bpf_raw_event_map",
    "error_injection_entry",
)  # fmt: skip


class KernelExports:
    """The image's own exports."""

    name = link.KERNEL
    taints = 0
    unavailable = 0

    def __init__(self, image: Image) -> None:
        self._exports = image.exports
        self._asked: dict[str, Export | None] = {}
        """Modules ask for the same few thousand names again and again."""

    def export(self, name: str) -> Export | None:
        try:
            return self._asked[name]
        except KeyError:
            found = self._exports.get(name)
        made = found and Export(name, found.address, found.gpl, found.namespace or "", found.crc)
        self._asked[name] = made
        return made


def rules_of(image: Image) -> Rules:
    """What of this kernel's build decides linking."""
    btf = image.btf
    module = btf.struct("module")
    memories = btf.find_struct("module_memory") is not None
    paths = (
        {name: f"mem[{number}].size" for number, name in enumerate(link.MEMORIES)}
        if memories
        else {name: f"{name}_layout.size" for name in ("core", "init")}
    )
    return Rules.of(
        {name: found.size for name in _SIZED if (found := btf.find_struct(name)) is not None},
        image.config,
        memories=memories,
        name_offset=module.offset_of("name"),
        size_offsets={name: module.offset_of(path) for name, path in paths.items()},
        orc_terminator_mask=_orc_terminator(image),
    )


def _orc_terminator(image: Image) -> int:
    """Bits of an ORC entry's last two bytes that are all zero where the entry only ends a range."""
    entry = image.btf.find_struct("orc_entry")
    mask = 0
    if entry is not None:
        for name in ("type",) if entry.find("signal") else ("sp_reg", "end"):
            if at := entry.find(name):
                mask |= ((1 << at.bit_size) - 1) << (at.bit_offset - (entry.size - 2) * 8)
    return mask


def keyrings_of(image: Image) -> sign.Keyrings:
    """The keys that the image was built to trust, in the rings it was built with."""
    config = image.config
    algorithms, registry = sign.Algorithms.from_config(config), registry_of(image)
    known = bool(config.text.strip())
    return sign.Keyrings(
        builtin=sign.load_certificate_list(image.certificates(), algorithms, registry),
        secondary=() if not known or config.enabled("SECONDARY_TRUSTED_KEYRING") else None,
        platform=() if not known or config.enabled("INTEGRITY_PLATFORM_KEYRING") else None,
        algorithms=algorithms,
        registry=registry,
    )


def registry_of(image: Image) -> sign.Registry:
    """The object identifiers that the image knows."""
    index, data = image.symbols.symbol("oid_index"), image.symbols.symbol("oid_data")
    if index is None or data is None:
        return sign.default_registry()
    return sign.Registry.from_tables(image.read(index.address, index.size), image.read(data.address, data.size))

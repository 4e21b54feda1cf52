"""A module on one page: the figures and names that a reader asks for first, as one record."""

from __future__ import annotations

from dataclasses import dataclass

from kobox.elf import EM, ET, SHF, SHN, SHT, name_of
from kobox.elf.notes import build_id
from kobox.errors import BadFile
from kobox.ko.module import KernelModule
from kobox.ko.pkcs7 import Signer, read_signer


@dataclass(frozen=True, slots=True)
class SignatureFacts:
    """What the file says about its signature. Nothing here is verified."""

    kind: str
    size: int
    signer: Signer | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """Sizes are in bytes. ``core_size`` stays while the module is loaded, ``init_size`` is given back after init."""

    file: str
    file_size: int
    compression: str | None
    type: str
    machine: str
    bits: int
    byte_order: str
    name: str
    description: str | None
    author: tuple[str, ...]
    license: str | None
    version: str | None
    srcversion: str | None
    vermagic: str | None
    build_id: str | None
    depends: tuple[str, ...]
    softdep: tuple[str, ...]
    import_ns: tuple[str, ...]
    firmware: tuple[str, ...]
    aliases: int
    init: str | None
    exit: str | None
    this_module_size: int | None
    core_size: int
    init_size: int
    sections: int
    symbols: int
    relocations: int
    params: int
    exports: int
    exports_gpl: int
    imports: int
    imports_weak: int
    versions: int
    has_debug_info: bool
    signature: SignatureFacts | None


def overview(module: KernelModule) -> Overview:
    """Read every part of ``module`` once. ``BadFile`` when one can't be read; a bad signature is a fact instead."""
    elf, info = module.elf, module.modinfo
    core_size, init_size = _loaded_sizes(module)
    exports, imports, own = module.exports, module.imports, module.this_module
    tables = [section for section in elf.sections if section.type in (SHT.RELA, SHT.REL)]
    return Overview(
        file=module.file,
        file_size=module.file_size,
        compression=module.compression,
        type=name_of(ET, elf.header.e_type),
        machine=name_of(EM, elf.header.e_machine),
        bits=elf.layout.bits,
        byte_order=elf.layout.byteorder,
        name=module.name,
        description=info.get("description"),
        author=info.get_all("author"),
        license=info.get("license"),
        version=info.get("version"),
        srcversion=info.get("srcversion"),
        vermagic=info.get("vermagic"),
        build_id=build_id(elf),
        depends=module.depends,
        softdep=info.get_all("softdep"),
        import_ns=module.import_ns,
        firmware=info.get_all("firmware"),
        aliases=len(info.get_all("alias")),
        init=own.init if own else None,
        exit=own.exit if own else None,
        this_module_size=own.size if own else None,
        core_size=core_size,
        init_size=init_size,
        sections=len(elf.sections),
        symbols=len(elf.symbols),
        relocations=sum(len(elf.relocations(table)) for table in tables),
        params=len(module.params),
        exports=len(exports),
        exports_gpl=sum(export.gpl for export in exports),
        imports=len(imports),
        imports_weak=sum(symbol.weak for symbol in imports),
        versions=len(module.versions),
        has_debug_info=elf.section(".debug_info") is not None,
        signature=signature_facts(module),
    )


def signature_facts(module: KernelModule) -> SignatureFacts | None:
    """The signature as the file tells it; None for an unsigned module."""
    trailer = module.signature
    if trailer is None:
        return None
    signer, problems = None, trailer.problems
    if trailer.message:
        try:
            signer = read_signer(trailer.message, module.file)
        except BadFile as error:
            problems = (*problems, f"the message can't be read: {error.place}: {error.what}")
    return SignatureFacts(trailer.id_name, len(trailer.message), signer, problems)


def _loaded_sizes(module: KernelModule) -> tuple[int, int]:
    """Bytes of the loaded sections with their alignment, core and init; the kernel rounds each group up to pages."""
    sizes = {False: 0, True: 0}
    for section in module.elf.sections:
        if section.flags & SHF.ALLOC and section.index != SHN.UNDEF:
            of_init = section.name.startswith(".init")
            align = max(section.addralign, 1)
            sizes[of_init] = -(-sizes[of_init] // align) * align + section.size
    return sizes[False], sizes[True]

"""Small kernels, types and packages for tests, made from descriptions: no blob, no tool.

``KernelBuilder`` makes a vmlinux with kallsyms, exports and BTF that ``kobox.image`` can read, ``bz_image`` packs it as
the kernel's build does, ``BtfBuilder`` writes types, ``deb`` a Debian package.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TEXT_BASE = 0xFFFFFFFF81000000
PHYS_BASE = 0x1000000
RELEASE = "6.9.0-test"


class BtfBuilder:
    """Types in the order they are added; every method returns the new type's number. With a base it is a split BTF that
    goes on after it."""

    def __init__(self, base: BtfBuilder | None = None) -> None:
        self._first = base._next if base else 1
        self._first_string = base._first_string + len(base._strings) if base else 0
        self._types = bytearray()
        self._strings = bytearray(b"" if base else b"\0")
        self._next = self._first

    def int(self, name: str, size: int, *, signed: bool = False, boolean: bool = False, bits: int = 0) -> int:
        encoding = (1 if signed else 0) | (4 if boolean else 0)
        return self._add(name, 1, size, struct.pack("<I", encoding << 24 | (bits or 8 * size)))

    def ptr(self, target: int) -> int:
        return self._add("", 2, target)

    def array(self, element: int, count: int, index: int = 1) -> int:
        return self._add("", 3, 0, struct.pack("<III", element, index, count))

    def struct(self, name: str, size: int, members: Sequence[tuple], *, union: bool = False, old: bool = False) -> int:
        """Members are (name, type, bit offset) or (name, type, bit offset, bit size)."""
        flag = not old and any(len(member) == 4 for member in members)
        body = b"".join(
            struct.pack("<III", self.string(name), kind, place | (rest[0] << 24 if rest else 0))
            for name, kind, place, *rest in members
        )
        return self._add(name, 5 if union else 4, size, body, len(members), flag)

    def enum(self, name: str, values: Mapping[str, int], *, signed: bool = False) -> int:
        body = b"".join(struct.pack("<II", self.string(key), value & 0xFFFFFFFF) for key, value in values.items())
        return self._add(name, 6, 4, body, len(values), signed)

    def enum64(self, name: str, values: Mapping[str, int], *, signed: bool = False) -> int:
        body = b"".join(
            struct.pack("<III", self.string(key), value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF)
            for key, value in values.items()
        )
        return self._add(name, 19, 8, body, len(values), signed)

    def refer(self, kind: int, target: int, name: str = "") -> int:
        """Kinds that only refer: 8 typedef, 9 volatile, 10 const, 11 restrict, 18 type tag."""
        return self._add(name, kind, target)

    def forward(self, name: str, *, union: bool = False) -> int:
        return self._add(name, 7, 0, flag=union)

    def proto(self, returns: int, params: Sequence[tuple[str, int]]) -> int:
        body = b"".join(struct.pack("<II", self.string(name), kind) for name, kind in params)
        return self._add("", 13, returns, body, len(params))

    def func(self, name: str, proto: int) -> int:
        return self._add(name, 12, proto)

    def var(self, name: str, kind: int) -> int:
        return self._add(name, 14, kind, struct.pack("<I", 1))

    def datasec(self, name: str, variables: Sequence[tuple[int, int, int]]) -> int:
        body = b"".join(struct.pack("<III", *variable) for variable in variables)
        return self._add(name, 15, 4096, body, len(variables))

    def string(self, text: str) -> int:
        if not text:
            return 0
        at = self._first_string + len(self._strings)
        self._strings += text.encode() + b"\0"
        return at

    def build(self) -> bytes:
        types, strings = bytes(self._types), bytes(self._strings)
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
        return header + types + strings

    def _add(self, name: str, kind: int, word: int, body: bytes = b"", count: int = 0, flag: bool = False) -> int:
        info = kind << 24 | count | (1 << 31 if flag else 0)
        self._types += struct.pack("<III", self.string(name), info, word & 0xFFFFFFFF) + body
        self._next += 1
        return self._next - 1


@dataclass
class KernelBuilder:
    """A vmlinux of one text segment and one per-CPU segment. ``order`` is where kallsyms keeps its addresses:
    ``before`` the names as up to 6.3, or ``behind`` the token index; ``seqs`` adds the table of sequence numbers;
    ``absolute`` keeps per-CPU symbols as absolute values, as up to 6.14."""

    order: str = "behind"
    seqs: bool = True
    absolute: bool = True
    banner: str = f"Linux version {RELEASE} (test@test) #1 SMP"
    fillers: int = 1100
    bss: int = 0x3000
    btf: bytes = field(default_factory=lambda: _small_btf().build())
    exports: Sequence[tuple[str, bool, str]] = (("exported", False, ""), ("exported_gpl", True, "SPACE"))
    crcs: bool = True
    config: bytes = b""
    build_id: bytes = bytes(range(20))

    def __post_init__(self) -> None:
        self.symbols: list[tuple[str, int, str]] = []
        self._data = bytearray(0x1000)

    def build(self) -> bytes:
        """The ELF file."""
        self.symbols = [("per_cpu_thing", 0x40, "D")] if self.absolute else []
        self.symbols += [("_text", TEXT_BASE, "T")]
        self.symbols += [(f"filler_{n}", TEXT_BASE + 0x10 + n // 2 * 4, "t") for n in range(self.fillers)]
        self._text_of("linux_banner", self.banner + "\n")
        self._text_of("vermagic", RELEASE + " SMP mod_unload ")
        self._exports()
        note = struct.pack("<III", 4, len(self.build_id), 3) + b"GNU\0" + self.build_id
        self._block("__start_notes", "__stop_notes", note)
        self._block("__start_BTF", "__stop_BTF", self.btf)
        if self.config:
            packed = gzip.compress(self.config)
            self._block("kernel_config_data", "kernel_config_end", b"IKCFG_ST" + packed + b"IKCFG_ED")
        self._initcalls()
        self.symbols.append(("_end", TEXT_BASE + len(self._data) + 0x80000, "B"))
        self.symbols.sort(key=lambda symbol: symbol[1])
        self._align(8)
        self._data += kallsyms(self.symbols, self.order, self.seqs, self.absolute)
        self._align(4096)
        return self._elf()

    def packed(self, packing: str = "gzip") -> bytes:
        return bz_image(self.build(), packing, self.banner.split(" ", 2)[2])

    def _initcalls(self) -> None:
        self._align(4)
        place = TEXT_BASE + len(self._data)
        self.symbols.append(("__initcall_start", place, "D"))
        self._data += struct.pack("<i", TEXT_BASE + 0x10 - place)
        for level in range(8):
            self.symbols.append((f"__initcall{level}_start", place + 4, "D"))
            if level == 5:
                self.symbols.append(("__initcallrootfs_start", place + 4, "D"))
        self._data += struct.pack("<i", TEXT_BASE + 0x14 - place - 4)
        self.symbols.append(("__initcall_end", place + 8, "D"))

    def _exports(self) -> None:
        ordered = sorted(self.exports)
        strings: dict[str, int] = {}
        for name, _, space in ordered:
            for text in (name, space):
                if text not in strings:
                    strings[text] = len(self._data)
                    self._data += text.encode() + b"\0"
        for suffix, gpl in (("", False), ("_gpl", True)):
            self._align(8)
            chosen = [export for export in ordered if export[1] is gpl]
            records = bytearray()
            for name, _, space in chosen:
                place = len(self._data) + len(records)
                value = 0x10 + 4 * len(self.symbols)
                self.symbols.append((name, TEXT_BASE + value, "T"))
                records += struct.pack(
                    "<iii", value - place, strings[name] - place - 4, strings[space] - place - 8 if space else 0
                )
            self._block(f"__start___ksymtab{suffix}", f"__stop___ksymtab{suffix}", bytes(records))
            crcs = b"".join(struct.pack("<I", zlib.crc32(name.encode())) for name, _, _ in chosen)
            if self.crcs:
                self._block(f"__start___kcrctab{suffix}", f"__stop___kcrctab{suffix}", crcs)

    def _text_of(self, symbol: str, text: str) -> None:
        self._block(symbol, "", text.encode() + b"\0")

    def _block(self, start: str, stop: str, data: bytes) -> None:
        self._align(8)
        self.symbols.append((start, TEXT_BASE + len(self._data), "R"))
        self._data += data
        if stop:
            self.symbols.append((stop, TEXT_BASE + len(self._data), "R"))

    def _align(self, size: int) -> None:
        self._data += bytes(-len(self._data) % size)

    def _elf(self) -> bytes:
        text, percpu = bytes(self._data), bytes([0xCC]) * 0x1000
        text_memory = len(text) + self.bss
        names = b"\0.text\0.data..percpu\0.shstrtab\0.notes\0"
        notes = next(address for name, address, _ in self.symbols if name == "__start_notes")
        first = 0x1000
        ehdr = struct.pack(
            "<16sHHIQQQIHHHHHH",
            b"\x7fELF\x02\x01\x01", 2, 62, 1, PHYS_BASE, 64, first + len(text) + len(percpu) + len(names), 0, 64, 56, 2,
            64, 5, 3,
        )  # fmt: skip
        place = PHYS_BASE + text_memory
        phdrs = struct.pack("<IIQQQQQQ", 1, 5, first, TEXT_BASE, PHYS_BASE, len(text), text_memory, 0x1000)
        phdrs += struct.pack("<IIQQQQQQ", 1, 6, first + len(text), 0, place, len(percpu), len(percpu), 0x1000)
        shdrs = bytes(64)
        shdrs += struct.pack("<IIQQQQIIQQ", 1, 1, 6, TEXT_BASE, first, len(text), 0, 0, 16, 0)
        shdrs += struct.pack("<IIQQQQIIQQ", 7, 1, 3, 0, first + len(text), len(percpu), 0, 0, 16, 0)
        strings_at = first + len(text) + len(percpu)
        shdrs += struct.pack("<IIQQQQIIQQ", 21, 3, 0, 0, strings_at, len(names), 0, 0, 1, 0)
        size = 16 + len(self.build_id)
        shdrs += struct.pack("<IIQQQQIIQQ", 31, 7, 2, notes, first + notes - TEXT_BASE, size, 0, 0, 4, 0)
        return (ehdr + phdrs).ljust(first, b"\0") + text + percpu + names + shdrs


def kallsyms(symbols: Sequence[tuple[str, int, str]], order: str, seqs: bool, absolute: bool) -> bytes:
    """The tables as the kernel's build writes them, every token but a few a single character. In the order
    ``own places`` each offset is relative to itself; the tables must then start at the kernel's first byte."""
    tokens = [chr(code) for code in range(256)]
    tokens[1], tokens[2] = "filler_", "__"
    names, markers = bytearray(), []
    for number, (name, _, kind) in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(names))
        text = (kind + name).replace("filler_", "\x01").replace("__", "\x02").encode()
        names += (bytes([len(text)]) if len(text) < 128 else bytes([len(text) & 0x7F | 0x80, len(text) >> 7])) + text
    table, index = bytearray(), []
    for token in tokens:
        index.append(len(table))
        table += (token if token != "\0" else "").encode("latin-1") + b"\0"
    base = min(address for _, address, _ in symbols if address >= TEXT_BASE)
    offsets = [
        (address if address < base else base - 1 - address) if absolute else address - base for _, address, _ in symbols
    ]
    addresses = [struct.pack(f"<{len(offsets)}i", *offsets), struct.pack("<Q", base)]
    by_name = sorted(range(len(symbols)), key=lambda number: symbols[number][0])
    parts = [struct.pack("<I", len(symbols)), bytes(names), struct.pack(f"<{len(markers)}I", *markers)]
    sequence = [b"".join(number.to_bytes(3, "big") for number in by_name)] if seqs else []
    token_parts = [bytes(table), struct.pack("<256H", *index)]
    if order == "own places":
        at = sum(len(part) + -len(part) % 8 for part in [*parts, *token_parts])
        distances = [address - TEXT_BASE - at - 4 * number for number, (_, address, _) in enumerate(symbols)]
        parts = [*parts, *token_parts, struct.pack(f"<{len(distances)}i", *distances), *sequence]
    elif order == "before":
        parts = [*addresses, *parts, *sequence, *token_parts]
    else:
        parts = [*parts, *token_parts, *addresses, *sequence]
    return b"".join(part + bytes(-len(part) % 8) for part in parts) + bytes(64)


def bz_image(vmlinux: bytes, packing: str, banner: str = RELEASE) -> bytes:
    """A bootable file with the vmlinux packed inside."""
    packed = PACKERS[packing](vmlinux)
    if packing != "none":
        packed += struct.pack("<I", len(vmlinux))
    setup = bytearray(0x400)
    setup[0x1F1] = 1
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x20F)
    struct.pack_into("<H", setup, 0x20E, 0x100)
    setup[0x300 : 0x300 + len(banner) + 1] = banner.encode() + b"\0"
    struct.pack_into("<II", setup, 0x248, 0x40, len(packed))
    return bytes(setup) + bytes(0x40) + packed + bytes(0x30)


def _lzo(data: bytes) -> bytes:
    """lzop's file format with each block as it was: no compressor needed."""
    header = struct.pack(">HHHBBIIIIB", 0x1030, 0x2080, 0x0940, 1, 5, 0, 0o644, 0, 0, 0) + bytes(4)
    blocks = b"".join(
        struct.pack(">II", len(piece), len(piece)) + piece
        for piece in (data[at : at + 0x40000] for at in range(0, len(data), 0x40000))
    )
    return b"\x89LZO\x00\r\n\x1a\n" + header + blocks + bytes(4)


def _lz4(data: bytes) -> bytes:
    import lz4.block

    packed = lz4.block.compress(data, store_size=False)
    return struct.pack("<II", 0x184C2102, len(packed)) + packed


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKERS = {
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "zstd": _zstd,
    "lz4": _lz4,
    "lzo": _lzo,
    "none": bytes,
}


def deb(
    files: Mapping[str, bytes | str | None],
    *,
    packing: str = "xz",
    package: str = "linux-image-test",
    version: str = "1.0",
) -> bytes:
    """A package: path to content, None for a directory, ``-> target`` a symbolic link, ``=> path`` a hard one."""
    control = f"Package: {package}\nVersion: {version}\nDescription: a test\n of packages\n".encode()
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(_tar({"./control": control})),
        f"data.tar.{packing}" if packing != "none" else "data.tar": PACKERS[_TAR_PACKERS[packing]](_tar(files)),
    }
    out = b"!<arch>\n"
    for name, data in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


_TAR_PACKERS = {"xz": "xz", "gz": "gzip", "zst": "zstd", "none": "none"}


def _tar(files: Mapping[str, bytes | str | None]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            elif isinstance(content, str):
                entry.type = tarfile.SYMTYPE if content.startswith("-> ") else tarfile.LNKTYPE
                entry.linkname = content[3:]
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _small_btf() -> BtfBuilder:
    """An int, and the struct every test may look for."""
    types = BtfBuilder()
    number = types.int("int", 4, signed=True)
    types.struct("thing", 8, [("first", number, 0), ("second", number, 32)])
    types.enum("state", {"STATE_ON": 0, "STATE_OFF": 1})
    return types

"""A made-up system in a directory: module tree with indexes, modprobe.d, command line, loaded modules.

    root = DepotRoot(tmp_path).module("kernel/fs/foo.ko", needs=["kernel/lib/bar.ko"]).alias("fs-foo", "foo")
    root.conf("etc/modprobe.d/x.conf", "blacklist foo\\n").write()

Module files are empty unless bytes are given: whoever plans only looks whether they are there. ``chroot_kmod`` puts the
installed kmod into the root, so that the real tool sees exactly this system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from kobox.depot.index_write import IndexValues, write_index
from kobox.depot.names import module_name_of_path, normal_alias

RELEASE = "6.1.0-test"


class DepotRoot:
    def __init__(self, path: Path | str, release: str = RELEASE) -> None:
        self.path = Path(path)
        self.release = release
        self.tree = self.path / "lib/modules" / release
        self._needs: dict[str, list[str]] = {}
        self._content: dict[str, bytes] = {}
        self._indexes: dict[str, list[tuple[str, str]]] = {"alias": [], "symbols": [], "builtin.alias": []}
        self._builtins: list[str] = []
        self._files: dict[str, bytes] = {}

    def module(self, path: str, needs: list[str] | None = None, content: bytes = b"") -> DepotRoot:
        """``needs`` are paths, nearest first, as modules.dep has them (all of them, not only the direct ones)."""
        self._needs[path] = needs or []
        self._content[path] = content
        return self

    def alias(self, pattern: str, module: str) -> DepotRoot:
        self._indexes["alias"].append((pattern, module))
        return self

    def symbol(self, name: str, module: str) -> DepotRoot:
        self._indexes["symbols"].append((f"symbol:{name}", module))
        return self

    def builtin(self, path: str) -> DepotRoot:
        self._builtins.append(path)
        return self

    def builtin_alias(self, pattern: str, module: str) -> DepotRoot:
        self._indexes["builtin.alias"].append((pattern, module))
        return self

    def conf(self, path: str, text: str | bytes) -> DepotRoot:
        """A file anywhere below the root."""
        self._files[path] = text.encode() if isinstance(text, str) else text
        return self

    def cmdline(self, text: str) -> DepotRoot:
        return self.conf("proc/cmdline", text + "\n")

    def softdep(self, text: str) -> DepotRoot:
        return self.conf(f"lib/modules/{self.release}/modules.softdep", text)

    def loaded(
        self, name: str, refcount: int = 0, holders: tuple[str, ...] = (), state: str = "live", size: int = 16384
    ) -> DepotRoot:
        """A module in the kernel, as /sys/module shows it."""
        base = f"sys/module/{name}"
        self.conf(f"{base}/initstate", state + "\n").conf(f"{base}/refcnt", f"{refcount}\n")
        self.conf(f"{base}/coresize", f"{size}\n")
        for holder in holders:
            self.conf(f"{base}/holders/{holder}", "")
        (self.path / base / "holders").mkdir(parents=True, exist_ok=True)
        return self

    def write(self) -> DepotRoot:
        for path, content in self._content.items():
            self._put(f"lib/modules/{self.release}/{path}", content)
        order = {path: number for number, path in enumerate(self._needs)}
        dep, builtin = IndexValues(), IndexValues()
        lines = [f"{path}: {' '.join(needs)}".rstrip(" ") for path, needs in self._needs.items()]
        for line, (path, priority) in zip(lines, order.items(), strict=True):
            dep.add(module_name_of_path(path).encode(), priority, line.encode())
        for path in self._builtins:
            builtin.add(module_name_of_path(path).encode(), 0, b"")
        names = {module_name_of_path(path): number for path, number in order.items()}
        self._index("modules.dep", "".join(line + "\n" for line in lines), dep)
        self._index("modules.builtin", "".join(path + "\n" for path in self._builtins), builtin)
        for kind, entries in self._indexes.items():
            values = IndexValues()
            for pattern, module in entries:
                key = normal_alias(pattern)
                assert key is not None, pattern
                values.add(key.encode(), names.get(module, 0), module.encode())
            text = "".join(f"alias {pattern} {module}\n" for pattern, module in entries)
            self._index(f"modules.{kind}", None if kind == "builtin.alias" else text, values)
        for file, data in self._files.items():
            self._put(file, data)
        return self

    def _index(self, name: str, text: str | None, values: IndexValues) -> None:
        if not values.packed():
            values.add(b"filler_of_an_empty_index", 65535, b"filler")
        if text is not None:
            self._put(f"lib/modules/{self.release}/{name}", text.encode())
        self._put(f"lib/modules/{self.release}/{name}.bin", write_index(values))

    def _put(self, path: str, data: bytes) -> None:
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


# --- the real tool ---------------------------------------------------------------------------------------------------


def chroot_kmod(root: Path) -> None:
    """Copy the installed kmod and its libraries into ``root/kmod-sbin`` and where the loader looks for them."""
    program = Path(shutil.which("modprobe", path="/sbin:/usr/sbin:/bin:/usr/bin") or "/sbin/modprobe").resolve()
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+) \(0x", listed):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    (root / "kmod-sbin").mkdir(parents=True, exist_ok=True)
    shutil.copy(program, root / "kmod-sbin/kmod")
    for tool in ("modprobe", "rmmod", "insmod", "lsmod", "depmod"):
        link = root / "kmod-sbin" / tool
        if not link.exists():
            link.symlink_to("kmod")


def run_in_root(
    root: Path, tool: str, arguments: list[str], environment: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run the installed kmod's tool with ``root`` as its root directory. Needs user namespaces or root's rights."""
    command = ["chroot", str(root), f"/kmod-sbin/{tool}", *arguments]
    if os.geteuid() != 0:
        command = ["unshare", "-r", *command]
    done = subprocess.run(command, capture_output=True, env={"PATH": os.environ["PATH"], **(environment or {})})
    decode = lambda data: data.decode("utf-8", "surrogateescape")  # noqa: E731
    return done.returncode, decode(done.stdout), plain_messages(decode(done.stderr))


_DEBUG_NOISE = re.compile(r"^\S+: (?:INFO|DEBUG): .*\n", re.MULTILINE)
_LIBRARY_PLACE = re.compile(r"^libkmod: (?:ERROR|INFO) \S+:\d+ ", re.MULTILINE)
_TOOL_PLACE = re.compile(r"^(\w+: [A-Z]+: )(?:\.\./)?\S+\.c:\d+ \w+\(\) ", re.MULTILINE)


def plain_messages(text: str) -> str:
    """kmod's messages without what only a debug build says: source lines, addresses, its own life."""
    text = _DEBUG_NOISE.sub("", text).replace("/kmod-sbin/", "")
    text = _LIBRARY_PLACE.sub("libkmod: ", text)
    text = _TOOL_PLACE.sub(r"\1", text)
    return re.sub(r"ctx=0x[0-9a-f]+ ", "", text)

"""An inspection: boot, picture, load, picture, try what it offers, compare.

The kernel is one of its own that ends with the inspection, so that what the module broke stays there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from kobox.box import Kernel, boot
from kobox.confine import Confined, confine
from kobox.errors import Errno, GuestError, KoboxError, UsageError
from kobox.inspect.hooks import hooks_into, spans_of
from kobox.inspect.picture import Photographer
from kobox.inspect.records import ALARM, NOTE, Finding, Inspection
from kobox.kernel.modules import module_views
from kobox.ko import KernelModule, read_module
from kobox.sweep import inventory

NOBODY = 65534
_NOTABLE = {
    "commit_creds": "changes the permissions of tasks",
    "prepare_kernel_cred": "makes permissions of the kernel itself",
    "call_usermodehelper": "starts programs",
    "call_usermodehelper_exec": "starts programs",
    "register_kprobe": "places probes, which also tell where symbols are that are not exported",
    "register_ftrace_function": "hooks functions by ftrace",
    "kallsyms_lookup_name": "looks up symbols that are not exported",
    "nf_register_net_hook": "sees packets",
    "register_keyboard_notifier": "sees keys",
    "filp_open": "opens files",
    "kernel_write": "writes to files",
    "set_memory_rw": "makes memory writable",
}
_NAMED = ("kallsyms_lookup_name", "sys_call_table", "idt_table", "module_kallsyms_lookup_name", "set_memory_rw")


class _Watcher:
    """Notes where the module lies while the kernel still says so."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.name = ""
        self.address = 0

    def guest_was_reset(self) -> None:
        self.name, self.address = "", 0

    def module_coming(self, name: str) -> None:
        self.name = name
        self.address = next(v.address for v in module_views(self._kernel.guest) if v.text("name") == name)

    def module_exited(self) -> None:
        """Nothing is unloaded here."""


class Inspector:
    """A kernel in which modules are tried, one after the other, each from the same state. Close it, or use ``with``.

    ``image`` as ``kobox.boot`` takes it. ``seconds`` of virtual time are the limit of each call.
    """

    def __init__(
        self,
        image: str | os.PathLike[str] | None = None,
        progress: Callable[[str], None] | None = None,
        seconds: float = 60.0,
    ) -> None:
        kernel = boot(image, check_memory=False, autoload=False, progress=progress)
        if not isinstance(kernel, Kernel):
            raise UsageError("the bare kernel has nothing to hide from", "kobox kernel add --debian, or --image R")
        self._kernel = kernel
        self._seconds = seconds
        kernel.mark_pristine()
        self._photographer = Photographer(kernel)
        self.confined: Confined | None = None
        """What was given up before the first module, once ``confine`` was called."""
        self._fresh = True

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, *ended: object) -> None:
        self._kernel.close()

    def confine(self) -> Confined:
        """Give up, for good, what this process does not need for running modules: programs, the network, writing."""
        self.confined = confine()
        return self.confined

    def inspect(self, path: str, parameters: str = "") -> Inspection:
        """Run the module of this file and tell what it did."""
        module, kernel = read_module(path), self._kernel
        if not self._fresh:
            kernel.reset()
        self._fresh = False
        kernel.set_timeout(self._seconds)
        watcher = _Watcher(kernel)
        result, crash = 0, ""
        findings = list(_of_file(module, kernel))
        files, before = None, None
        try:
            _dependencies(kernel, module)
            files, before = inventory.take(kernel), self._photographer.take()
            kernel.modules_room.loader.watcher = watcher
            kernel.init_module(bytes(module.data), parameters)
            kernel.sleep(0.5)
        except Errno as refused:
            result = refused.number
        except GuestError as ended:
            crash = str(ended)
        finally:
            kernel.modules_room.loader.watcher = None
        registered: dict[str, tuple[str, ...]] = {}
        if kernel.dead:
            crash = crash or kernel.dead
        elif files is not None and before is not None:
            is_livepatch = module.modinfo.get("livepatch") is not None
            findings += self._photographer.compare(before, self._photographer.take(), is_livepatch)
            if not result and not crash:
                findings += _hiding(kernel, watcher)
                findings += self._hooks(watcher)
                registered = inventory.added(files, inventory.take(kernel, files))
                findings += _tried(kernel, registered)
        return Inspection(
            module.file,
            watcher.name or module.name,
            kernel.release,
            result,
            crash or kernel.dead,
            tuple(findings),
            registered,
            tuple(sorted(one.name for one in module.imports)),
            tuple(record.text for record in kernel.dmesg()),
        )

    def _hooks(self, watcher: _Watcher) -> Iterator[Finding]:
        guest = self._kernel.guest
        if not watcher.address or not guest.mapped(watcher.address):
            return
        spans = spans_of(guest.view("module", watcher.address), guest)
        if spans:
            yield from hooks_into(spans, guest, self._photographer.symbolized)


def _dependencies(kernel: Kernel, module: KernelModule) -> None:
    """What the module says that it needs, from the image's own tree."""
    for name in (module.modinfo.get("depends") or "").split(","):
        if name:
            kernel.modprobe(name)


def _of_file(module: KernelModule, kernel: Kernel) -> Iterator[Finding]:
    """What can be read off the file: notable imports, and names of symbols that it has no right to."""
    for one in module.imports:
        if one.name in _NOTABLE:
            yield Finding("import", NOTE, f"imports {one.name}(): {_NOTABLE[one.name]}", one.name)
    data = bytes(module.data)
    for name in _NAMED:
        if b"\0" + name.encode() + b"\0" in data and name not in kernel.image.exports:
            yield Finding("named-symbol", NOTE, f"names {name}, which is not exported", name)


def _hiding(kernel: Kernel, watcher: _Watcher) -> Iterator[Finding]:
    """What the kernel says in one place and not in another. The module's memory is the witness that it is there."""
    name, guest = watcher.name, kernel.guest
    if not name or not guest.mapped(watcher.address):
        return
    places = {
        "the list of modules (lsmod, /proc/modules)": name in [view.text("name") for view in module_views(guest)],
        "/sys/module": _exists(kernel, f"/sys/module/{name}/initstate"),
        "/proc/kallsyms": f"[{name}]".encode() in kernel.read("/proc/kallsyms"),
    }
    rules = ("hidden-list", "hidden-sysfs", "hidden-symbols")
    for rule, (place, is_there) in zip(rules, places.items(), strict=True):
        if not is_there:
            text = f"is loaded at {watcher.address:#x}, and {place} does not show it"
            # symbols are read off the list: a module that is not on it has none to show
            yield Finding(rule, ALARM, text, name)
    if all(places.values()):
        own = next(view for view in module_views(guest) if view.address == watcher.address)
        if own["refcnt.counter"] > 1:
            yield Finding("holds-itself", NOTE, "holds a reference to itself, so that it cannot be unloaded", name)


def _tried(kernel: Kernel, registered: dict[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Open, read and write what it offers as nobody, who must stay nobody."""
    offered = list(_files_of(kernel, registered))
    call = kernel.syscalls.call
    if call("setresgid", NOBODY, NOBODY, NOBODY) or call("setresuid", NOBODY, NOBODY, NOBODY):
        yield Finding("not-tried", NOTE, "its files were not tried: the task could not become nobody")
        return
    for path in offered:
        for flags, use in ((os.O_RDONLY, None), (os.O_WRONLY, b"1\n"), (os.O_RDWR, b"1\n")):
            try:
                descriptor = kernel.files.open(path, flags)
                try:
                    if use is None:
                        kernel.files.read_from(descriptor, 64)
                    else:
                        kernel.files.write_to(descriptor, use)
                finally:
                    kernel.files.close(descriptor)
            except KoboxError as refused:  # what it answers is its own affair
                if kernel.dead:
                    yield Finding("crash-in-use", NOTE, f"the kernel died of the use of {path}: {refused}", path)
                    return
            if call("geteuid") == 0:
                yield Finding("gives-root", ALARM, f"gives root to nobody who uses {path}", path)
                return


_FOLDERS = ("/proc", "/dev", "/sys/kernel/debug")


def _files_of(kernel: Kernel, registered: dict[str, tuple[str, ...]]) -> Iterator[str]:
    names = {name.split()[-1].lstrip("/") for kind in registered.values() for name in kind if name.split()}
    for name in sorted(names):
        for folder in _FOLDERS:
            if _exists(kernel, f"{folder}/{name}"):
                yield f"{folder}/{name}"


def _exists(kernel: Any, path: str) -> bool:
    try:
        kernel.files.status(path)
    except Errno:
        return False
    return True

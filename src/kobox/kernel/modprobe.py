"""The kernel's requests for modules (``request_module``), answered as modprobe on the kernel's own system does.

The kernel starts ``modprobe -q -- NAME`` (``helpers``). Here that is a program: the plan comes from ``depot``, by the
configuration and the index of a root directory; each file of it is loaded by the loader in the task of the program.
Follows ``kernel/module/kmod.c`` for what is asked, and kmod for what is done.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from kobox.depot.commands import FAILS, UNKNOWN, command_effect
from kobox.depot.plan import InsertPlan
from kobox.depot.resolve import Resolver
from kobox.depot.targets import How, Loaded, insertions
from kobox.errors import KoboxError
from kobox.kernel.env import Result
from kobox.kernel.guest import Guest
from kobox.kernel.helpers import HelperCall
from kobox.kernel.loader import Loader
from kobox.kernel.module_files import ModuleFiles
from kobox.kernel.modules import module_views, state_of
from kobox.kernel.records import Autoload

_QUIET, _BLACKLIST, _ALL = "-q", "-b", "-a"
_KNOWN = frozenset({_QUIET, "--quiet", _BLACKLIST, "--use-blacklist", _ALL, "--all", "-s", "--syslog"})


@dataclass(slots=True, eq=False)
class _Request:
    """One request while it is served."""

    name: str
    asked_by: str = ""
    function: str = ""
    call: HelperCall | None = None
    """The program that serves it; None for udev, which loads by itself."""
    status: int | None = None
    modules: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


class Modprobe:
    """``modprobe`` of one guest. ``resolver`` makes the plans' source when the first request comes."""

    def __init__(self, guest: Guest, loader: Loader, resolver: Callable[[], Resolver]) -> None:
        self._guest, self._loader, self._open = guest, loader, resolver
        self._resolver: Resolver | None = None
        self._requests: list[_Request] = []
        self._files = ModuleFiles()

    @property
    def autoloads(self) -> list[Autoload]:
        """Every request so far, oldest first."""
        return [
            Autoload(
                request.name,
                request.asked_by,
                request.function,
                tuple(request.modules),
                request.call.status if request.call is not None else request.status,
                tuple(request.said),
            )
            for request in self._requests
        ]

    def mark(self) -> int:
        return len(self._requests)

    def forget(self, mark: int) -> None:
        """The guest was reset to when there were ``mark`` requests."""
        del self._requests[mark:]

    def close(self) -> None:
        """Let go of the plans' source: the next request opens it anew."""
        if self._resolver is not None:
            self._resolver.tree.close()
            self._resolver = None

    @property
    def resolver(self) -> Resolver:
        if self._resolver is None:
            self._resolver = self._open()
        return self._resolver

    def answer(self, call: HelperCall) -> Generator[tuple[int, ...], int, int]:
        """The program ``modprobe [-q] [-b] [-a] [--] NAME``, as the kernel and udev call it; exit status 0 or 1."""
        options, names = _parse(call.argv[1:])
        use_blacklist = not options.isdisjoint({_BLACKLIST, "--use-blacklist"})
        failed = not names
        for name in names:
            asker = call.asker
            request = _Request(name, asker.comm if asker else "", asker.function if asker else "", call)
            self._requests.append(request)
            unknown = options - _KNOWN
            if unknown:
                request.said.append(f"option {min(unknown)} is not known to the modprobe inside the kernel")
                failed = True
                continue
            try:
                failed |= (yield from self._serve(request, use_blacklist)) < 0
            except KoboxError as error:
                request.said.append(str(error))
                failed = True
        return int(failed)

    def load_for_device(self, alias: str, device: str) -> Generator[tuple[int, ...], int, None]:
        """What udev does for a device: load what its alias stands for; nothing where no module is for it."""
        request = _Request(alias, "udev", device)
        try:
            plan = self.resolver.insert(alias, use_blacklist=True)
            if plan.probes:
                self._requests.append(request)
                how = How(show=None, say=lambda level, text: request.said.append(text))
                request.said += _remarks(plan)
                request.status = int((yield from self._walk(plan, request, how)) < 0)
        except KoboxError as error:
            request.said.append(str(error))
            request.status = 1
            if request not in self._requests:
                self._requests.append(request)

    def _serve(self, request: _Request, use_blacklist: bool) -> Result:
        plan = self.resolver.insert(request.name, use_blacklist=use_blacklist)
        request.said += _remarks(plan)
        if not plan.probes:
            return -1
        how = How(show=None, say=lambda level, text: request.said.append(text))
        return (yield from self._walk(plan, request, how))

    def _walk(self, plan: InsertPlan, request: _Request, how: How) -> Result:
        walk = insertions(plan, _InGuest(self._guest, request.said), how)
        try:
            step = next(walk)
            while True:
                number = yield from self._insert(step.path, step.options, request.said)
                if number == 0:
                    request.modules.append(step.module)
                step = walk.send(number)
        except StopIteration as ended:
            return int(ended.value)

    def _insert(self, path: str, options: str, said: list[str]) -> Result:
        try:
            data = self._files.read(path)
        except OSError as error:
            said.append(f"{path}: {error.strerror}")
            return -(error.errno or errno.EIO)

        def refused(why: str) -> None:
            said.append(f"{path}: {why}")

        arguments = options.encode("utf-8", "surrogateescape")
        return (yield from self._loader.load(data, arguments, refused=refused, comm="modprobe"))


class _InGuest:
    """The guest, for one request: what is loaded, read from its list; commands are not run."""

    def __init__(self, guest: Guest, said: list[str]) -> None:
        self._guest, self._said = guest, said

    def loaded(self) -> Mapping[str, Loaded]:
        found: dict[str, Loaded] = {}
        for view in module_views(self._guest):
            if (state := state_of(view)) != "unformed":
                name = view.text("name")
                found[name] = Loaded(name, state, None, 0, ())
        return found

    def run_command(self, command: str, environment: Mapping[str, str]) -> int:
        effect = command_effect(command)
        if effect == UNKNOWN:
            self._said.append(f"the install command {command!r} of the configuration is not run")
        return int(effect in (FAILS, UNKNOWN))


def _parse(words: tuple[str, ...]) -> tuple[frozenset[str], list[str]]:
    """Options and names. What follows a first name are its parameters, which the kernel never gives, unless -a."""
    options: set[str] = set()
    names: list[str] = []
    only_names = False
    for word in words:
        if word == "--" and not only_names:
            only_names = True
        elif word.startswith("-") and not only_names:
            options.add(word)
        else:
            names.append(word)
    return frozenset(options), names if options & {_ALL, "--all"} else names[:1]


def _remarks(plan: InsertPlan) -> list[str]:
    """Why a plan does nothing or less than was asked for."""
    remarks = [complaint.text for complaint in plan.complaints]
    if not plan.probes:
        remarks.append(f"Module {plan.request} not found in directory {plan.directory}")
    return remarks + [f"{probe.module}: {probe.refused}" for probe in plan.probes if probe.refused is not None]

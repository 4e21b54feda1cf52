"""The commands that ``kobox shell`` adds to those of the room ``shell``: the tools of kmod and dmesg, on its kernel.

They are the commands of this folder, given a kernel as their target, with what they print caught for the pipe.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kobox.cli import depmod, insmod, lsmod, modinfo, modprobe, rmmod
from kobox.cli import dmesg as dmesg_face
from kobox.cli.described import usage_of
from kobox.cli.session_log import SessionLog
from kobox.depot.kernel_target import KernelTarget
from kobox.depot.names import is_module_file
from kobox.depot.tree import ModuleTree
from kobox.dmesg.source import KernelLog
from kobox.errors import KoboxError
from kobox.kernel.module_source import with_index
from kobox.ko import read_module
from kobox.shell import Command, Failed, Io, Output

if TYPE_CHECKING:
    from kobox.kernel.log import LogRecord
    from kobox.session.client import RemoteKernel
    from kobox.shell import ShellKernel

Main = Callable[[Sequence[str]], int]


class ModuleRoot:
    """Where a kernel's modules and their configuration are: the root of its image, or one that the user names."""

    def __init__(self, kernel: ShellKernel, root: str | None) -> None:
        self._release = kernel.release
        folder = kernel.modules_folder
        self.root = root if root is not None else None if folder is None else _root_of(folder)

    def options(self, release: str) -> list[str]:
        """What tells a tool of kmod which modules are meant; ``release`` is its option for the kernel's release."""
        if self.root is None:
            raise Failed("this kernel has no modules of its own", hint="kobox shell --root DIR, or insmod FILE.ko")
        return ["--root", self.root, release, self._release]

    def tree(self) -> ModuleTree:
        """With the index that it has, or one from the cache: packages leave making it to depmod."""
        assert self.root is not None
        return with_index(ModuleTree(self.root, self._release))

    # -- names, for completion ----------------------------------------------------------------------------------------

    def names(self) -> Iterable[str]:
        """Modules that modprobe finds by name."""
        if self.root is None:
            return []
        with self.tree() as tree:
            return [name for name, _ in tree.all_deps()]

    def parameters(self, module: str) -> Iterable[str]:
        """Names of a module's parameters: by its name in the tree, or of a file."""
        return [parameter.name for parameter in read_module(self._file(module)).params]

    def _file(self, module: str) -> Path:
        if is_module_file(module):
            return Path(module)
        if self.root is None:
            raise Failed(f"no module {module!r}")
        with self.tree() as tree:
            line = tree.dep_line(module.replace("-", "_"))
            if line is None:
                raise Failed(f"no module {module!r}")
            return Path(tree.path(line.path))


def _root_of(folder: Path) -> str:
    """The root that ``lib/modules/RELEASE`` belongs to."""
    above = folder.parent.parent.parent
    return str(above.parent if above.name == "usr" else above)


def tools(
    kernel: ShellKernel, modules: ModuleRoot, session: RemoteKernel | None, restart: Callable[[], object]
) -> tuple[Command, ...]:
    """The commands, for one kernel; ``session`` is the same where it is one's, ``restart`` boots it anew."""
    target = KernelTarget(kernel)

    mains: dict[str, tuple[Main, str, tuple[str, ...]]] = {
        "insmod": (lambda words: insmod.main(words, target), "files", ("insmod hello.ko my_param=7",)),
        "rmmod": (lambda words: rmmod.main([*_root_option(modules), *words], target), "loaded", ("rmmod hello",)),
        "lsmod": (lambda words: lsmod.main(words, target), "", ("lsmod", "lsmod | wc -l")),
        "modprobe": (
            lambda words: modprobe.main([*modules.options("-S"), *words], target),
            "modules",
            ("modprobe bonding miimon=100", "modprobe -r bonding", "modprobe -D ext4"),
        ),
        "modinfo": (
            lambda words: modinfo.main([*_modinfo_options(modules, words), *words], on_kernel=True),
            "modules",
            ("modinfo ext4", "modinfo -p bonding"),
        ),
        "depmod": (lambda words: depmod.main([*_root_option(modules), *words]), "", ("depmod -n | head",)),
    }
    found = [
        Command(
            name,
            _usage_line(name),
            _sentence(usage_of(name).help),
            _caught(main),
            examples,
            _options(name),
            completes,
            _details(name),
        )
        for name, (main, completes, examples) in mains.items()
    ]
    found.append(
        Command(
            "dmesg",
            "[OPTION ...]",
            "The kernel's log, with the options of util-linux's dmesg.",
            lambda shell, words: _dmesg(shell, words, session),
            ("dmesg -l err,warn", "dmesg -T | tail -3", "dmesg -w", "dmesg -n err"),
            _options("dmesg"),
            "",
            _details("dmesg"),
        )
    )
    found.append(
        Command(
            "reboot",
            "",
            "Start the kernel anew, as it was after its boot. Also for one that has stopped.",
            lambda shell, words: _reboot(restart),
            ("reboot",),
            (),
            "",
        )
    )
    return tuple(found)


def _reboot(restart: Callable[[], object]) -> Output:
    restart()
    return 0
    yield b""


def _root_option(modules: ModuleRoot) -> list[str]:
    return [] if modules.root is None else ["--root", modules.root]


def _modinfo_options(modules: ModuleRoot, words: Sequence[str]) -> list[str]:
    """Files need no tree."""
    if modules.root is None and any(is_module_file(word) for word in words):
        return []
    return modules.options("-k")


def _usage_line(name: str) -> str:
    """How it is called here, where the kernel needs no naming."""
    return usage_of(name).lines[0].removeprefix("--live ")


def _options(name: str) -> tuple[str, ...]:
    return tuple(spelled for option in usage_of(name).options for spelled in option.names)


_ELSEWHERE = {"--live", "--root", "--session"}
"""Options that choose another system than the shell's."""


_HELP_COLUMN = 32


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _details(name: str) -> str:
    """Every option that makes sense here, with what it is for."""
    lines = ["options:"]
    for option in usage_of(name).options:
        if _ELSEWHERE & set(option.names):
            continue
        spelled = f"  {option.spelling}"
        if len(spelled) > _HELP_COLUMN - 2:
            lines.append(spelled)
            spelled = ""
        lines.append(f"{spelled:<{_HELP_COLUMN}}{option.help}")
    return "\n".join(lines)


def _caught(main: Main) -> Callable[[Io, Sequence[str]], Output]:
    """A command of this folder as one of the shell's: what it prints goes down the pipe."""

    def run(shell: Io, arguments: Sequence[str]) -> Output:
        out, err = _text(), _text()
        failure: KoboxError | OSError | None = None
        code = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main(arguments)
            except SystemExit as ended:  # argparse ends its program itself
                code = int(ended.code or 0)
            except (KoboxError, OSError) as error:
                failure = error
        for line in _bytes_of(err).decode("utf-8", "surrogateescape").splitlines():
            shell.complain(line)
        yield _bytes_of(out)
        if failure is not None:
            raise failure
        return code

    return run


def _text() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape", write_through=True)


def _bytes_of(stream: io.TextIOWrapper) -> bytes:
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue()


# --- dmesg -----------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """One whose errors are those of a command of the shell."""

    def error(self, message: str) -> NoReturn:
        raise Failed(message, 2, "dmesg --help")


class _FollowedLog(KernelLog):
    """A log that stops being followed at Ctrl-C."""

    def __init__(self, kernel: ShellKernel, interrupted: Callable[[], bool]) -> None:
        super().__init__(kernel)
        self._interrupted = interrupted

    def follow(self, after: int) -> Iterator[list[LogRecord]]:
        for new in super().follow(after):
            if self._interrupted():
                return
            yield new


def _dmesg(shell: Io, arguments: Sequence[str], session: RemoteKernel | None) -> Output:
    parser = _Parser(prog="dmesg", formatter_class=argparse.RawDescriptionHelpFormatter)
    dmesg_face.add_arguments(parser)
    if {"-h", "--help"} & set(arguments):
        yield parser.format_help().encode()
        return 0
    args = parser.parse_args(list(arguments))
    if args.file is not None or args.live or args.session is not None:
        source = dmesg_face.source_of(args)
    elif session is not None:
        source = SessionLog(session)
    else:
        source = _FollowedLog(shell.kernel, shell.interrupted)
    for text in dmesg_face.emit(args, source, shell.terminal):
        yield text.encode("utf-8", "surrogateescape")
    return 0

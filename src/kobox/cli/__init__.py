"""The command line: a table of commands, each a module that parses, calls and prints.

A command module has ``add_arguments(parser)`` and ``run(args) -> int``, and optionally ``EPILOG`` (an example for
``--help``). Only the chosen command's module is imported, so that cheap commands stay cheap. Logic lives in the rooms
below; here a record is turned into text or JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kobox.cli.table import COMMANDS, COMPAT


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the process's exit code."""
    import os

    args = list(sys.argv[1:] if argv is None else argv)
    called_as = os.path.basename(sys.argv[0]) if argv is None else "kobox"
    if called_as in COMPAT:
        args.insert(0, called_as)
    if not args or args[0] in ("-h", "--help", "help"):
        _print_overview()
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        from kobox import __version__

        print(f"kobox {__version__}")
        return 0
    name, rest = args[0], args[1:]
    if name == "__complete":  # asked by the shells' completion scripts, at each press of the key
        from kobox.cli.complete import main as complete

        return complete(rest)
    if name not in COMMANDS:
        print(f"kobox: no command {name!r}{_nearest(name)}; see 'kobox --help'", file=sys.stderr)
        return 2
    return _run_command(name, rest)


def _run_command(name: str, rest: list[str]) -> int:
    import importlib

    from kobox.errors import KoboxError

    command = importlib.import_module(f"kobox.cli.{COMMANDS[name].module}")
    try:
        if hasattr(command, "main"):  # commands that keep kmod's own getopt manners
            code = int(command.main(rest))
        else:
            from kobox.cli.described import parser_of

            parser = parser_of(name, command)
            mixes = getattr(command, "MIXES_OPTIONS", False)  # name=value arguments may stand behind options
            code = int(command.run(parser.parse_intermixed_args(rest) if mixes else parser.parse_args(rest)))
        sys.stdout.flush()  # here, where a reader that is gone is no traceback
        return code
    except KoboxError as error:
        print(f"kobox {name}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        _drop_stdout()
        return 141
    except KeyboardInterrupt:
        print(f"kobox {name}: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"kobox {name}: {where}{error.strerror or error}", file=sys.stderr)
        return 1


def _print_overview() -> None:
    print("usage: kobox COMMAND [ARGUMENT ...]\n\nReal Linux kernel modules in a kernel inside this process.\n")
    print("commands:")
    for name, command in COMMANDS.items():
        print(f"  {name:<12} {command.help}")
    print("\n'kobox COMMAND --help' shows options and an example; 'kobox --version' the version.")


def _nearest(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _drop_stdout() -> None:
    """The reader is gone: point stdout at nothing so that the interpreter's own flush at exit stays quiet."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

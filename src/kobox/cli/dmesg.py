"""``kobox dmesg``: the log of a kernel, of a file or of this host, with the options of util-linux's dmesg."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from kobox.cli import colour
from kobox.errors import NotModelled, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kobox.dmesg import Filter, Style, TimeFormat
    from kobox.dmesg.source import LogSource
    from kobox.kernel.log import LogRecord

EPILOG = """\
examples:
  kobox dmesg --file crash.log -l err,warn
  kobox run --json hello.ko > run.json; kobox dmesg -F run.json -x
  kobox dmesg --session k1 -w

FILE is a raw log (dmesg -r), or what 'dmesg --json' or 'kobox run --json' wrote.
"""

_TIME_FORMATS = ("delta", "reltime", "ctime", "notime", "iso")
_TIME_OPTIONS = (
    ("-e", "reltime", "local time, and the time since the message before"),
    ("-T", "ctime", "date and time in words"),
    ("-t", "notime", "no time"),
)


class _Human(argparse.Action):
    """``-H``, which is also a time format, so that its place among them counts."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option: object = None) -> None:
        namespace.human, namespace.time_format = True, "reltime"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is shown")
    what.add_argument("-F", "--file", metavar="FILE", help="a saved log instead of a kernel's")
    what.add_argument("--session", metavar="SESSION", help="a session's log (default: the only one that runs)")
    what.add_argument("--live", help="this host's log", action="store_true")
    what.add_argument("-f", "--facility", metavar="LIST", help="only these facilities: kern, user, daemon …")
    what.add_argument("-k", "--kernel", help="only the kernel's own messages", action="store_true")
    what.add_argument("-u", "--userspace", help="only messages of programs", action="store_true")
    what.add_argument("-l", "--level", metavar="LIST", help="only these levels: emerg alert crit err warn … debug")
    what.add_argument("--since", metavar="TIME", help="only after this time: '2026-11-30 16:34', '10 min ago', today")
    what.add_argument("--until", metavar="TIME", help="only before this time")
    what.add_argument("-w", "--follow", help="wait for new messages", action="store_true")
    what.add_argument("-W", "--follow-new", help="wait for new messages, and show only those", action="store_true")
    what.add_argument("-S", "--syslog", help="accepted: kobox reads the log in one way only", action="store_true")
    what.add_argument("-s", "--buffer-size", metavar="SIZE", type=_size, help="accepted: the whole log is read")
    how = parser.add_argument_group("how it is shown")
    how.add_argument("-d", "--show-delta", help="the time since the message before", action="store_true")
    for short, name, text in _TIME_OPTIONS:
        how.add_argument(short, f"--{name}", help=text, action="store_const", const=name, dest="time_format")
    how.add_argument(
        "--time-format", choices=_TIME_FORMATS, help="one of these for the time; the last one given counts"
    )
    how.add_argument("-H", "--human", help="--reltime, colour and a pager", action=_Human, nargs=0)
    how.add_argument("-P", "--nopager", help="no pager", action="store_true")
    how.add_argument("-J", "--json", help="as JSON", action="store_true")
    how.add_argument(
        "-L",
        "--color",
        nargs="?",
        const="auto",
        choices=("auto", "always", "never"),
        help="colour (auto: on a terminal)",
    )
    how.add_argument(
        "-p", "--force-prefix", help="time and level on every line of a message with several", action="store_true"
    )
    how.add_argument("-r", "--raw", help="as the kernel's buffer has it", action="store_true")
    how.add_argument("--noescape", help="leave bytes that cannot be printed as they are", action="store_true")
    how.add_argument("-x", "--decode", help="facility and level in words", action="store_true")
    does = parser.add_argument_group("what is changed").add_mutually_exclusive_group()
    does.add_argument("-C", "--clear", help="clear the log, show nothing", action="store_true")
    does.add_argument("-c", "--read-clear", help="show, then clear", action="store_true")
    does.add_argument("-D", "--console-off", help="no messages on the console", action="store_true")
    does.add_argument("-E", "--console-on", help="messages on the console again", action="store_true")
    does.add_argument("-n", "--console-level", metavar="LEVEL", help="messages of this level and above on the console")


def run(args: argparse.Namespace) -> int:
    from kobox.cli.kmod_face import binary_safe_output

    binary_safe_output()
    source = source_of(args)
    with _Pager(args.human and not args.nopager and not _follows(args)) as write:
        for text in emit(args, source, sys.stdout.isatty()):
            write(text)
            if _follows(args):
                sys.stdout.flush()
    return 0


def emit(args: argparse.Namespace, source: LogSource, terminal: bool) -> Iterator[str]:
    """Do what the options say; texts to print, whole lines each."""
    from kobox.dmesg import parse_console_level
    from kobox.dmesg.source import CLEAR, CONSOLE_LEVEL, CONSOLE_OFF, CONSOLE_ON

    _check(args)
    if args.console_level is not None:
        source.control(CONSOLE_LEVEL, parse_console_level(args.console_level))
    elif args.console_off or args.console_on:
        source.control(CONSOLE_OFF if args.console_off else CONSOLE_ON)
    elif args.clear:
        source.control(CLEAR)
    else:
        yield from _show(args, source, terminal)
        if args.read_clear:
            source.control(CLEAR)


def _show(args: argparse.Namespace, source: LogSource, terminal: bool) -> Iterator[str]:
    from kobox.dmesg import JsonLog, lines, printable
    from kobox.dmesg.source import FileLog

    style, wanted = _style(args, source, terminal), _filter(args)
    records = _records(args, source)
    if args.json:
        writer = JsonLog(args.decode)
        yield writer.begin()
        yield from (writer.add(record) for record in records if record.text and wanted.accepts(record, style.boot_time))
        yield writer.end()
    elif args.raw and isinstance(source, FileLog) and not source.data.lstrip().startswith(b"{"):
        text = source.data.decode("utf-8", "surrogateescape")
        text = text if args.noescape else printable(text)
        yield text if text.endswith("\n") else text + "\n"
    else:
        yield from lines(records, style, wanted)


def _records(args: argparse.Namespace, source: LogSource) -> Iterator[LogRecord]:
    last = -1
    for record in source.records():
        last = record.sequence
        if not args.follow_new:
            yield record
    if _follows(args):
        for new in source.follow(last):
            yield from new


def source_of(args: argparse.Namespace) -> LogSource:
    """What the options name to be read."""
    from kobox.dmesg.source import FileLog, HostLog

    if args.file is not None:
        return FileLog(args.file)
    if args.live:
        return HostLog()
    from kobox.session.places import choose

    place = choose(args.session)
    if place is None:
        hint = "kobox boot starts one; --file FILE reads a saved log, --live this host's"
        raise NotModelled("no kobox kernel is running to ask", hint)
    from kobox.cli.session_log import SessionLog
    from kobox.session.client import RemoteKernel

    return SessionLog(RemoteKernel(place))


_EXCLUSIVE = (
    ("file", "live"), ("session", "file"), ("session", "live"),
    ("human", "raw"), ("color", "raw"), ("time_format", "raw"), ("show_delta", "raw"),
    ("raw", "decode"), ("clear", "raw"), ("read_clear", "raw"), ("syslog", "follow"),
)  # fmt: skip


def _check(args: argparse.Namespace) -> None:
    for one, other in _EXCLUSIVE:
        if getattr(args, one, False) and getattr(args, other, False):
            raise UsageError(f"--{one} and --{other} exclude each other".replace("_", "-"))
    if args.raw and args.file is not None and (args.level or args.facility or args.kernel or args.userspace):
        raise UsageError("--raw shows a file as it is; --level and --facility cannot be used with it")


def _style(args: argparse.Namespace, source: LogSource, terminal: bool) -> Style:
    from kobox.dmesg import Style, TimeFormat

    time = _time_format(args)
    needs_boot = time in (TimeFormat.CTIME, TimeFormat.CTIME_DELTA, TimeFormat.RELTIME, TimeFormat.ISO)
    return Style(
        time=time,
        decode=args.decode,
        raw=args.raw,
        escape=not args.noescape,
        force_prefix=args.force_prefix and args.file is None,
        color=not args.raw and _color(args, terminal),
        boot_time=source.boot_time() if needs_boot or args.since or args.until else 0,
    )


def _time_format(args: argparse.Namespace) -> TimeFormat:
    from kobox.dmesg import TimeFormat

    time = TimeFormat(args.time_format) if args.time_format and not args.json else TimeFormat.TIME
    if not args.show_delta:
        return time
    with_delta = {TimeFormat.TIME: TimeFormat.TIME_DELTA, TimeFormat.CTIME: TimeFormat.CTIME_DELTA}
    return TimeFormat.ISO if time is TimeFormat.ISO else with_delta.get(time, TimeFormat.DELTA)


def _filter(args: argparse.Namespace) -> Filter:
    from kobox.dmesg import FACILITIES, LEVELS, Filter, parse_names, parse_time

    facilities: frozenset[int] = frozenset()
    if args.facility:
        facilities |= parse_names(args.facility, FACILITIES, "facility")
    if args.kernel:
        facilities |= {0}
    if args.userspace:
        facilities |= frozenset(range(1, len(FACILITIES)))
    return Filter(
        levels=parse_names(args.level, LEVELS, "level") if args.level else None,
        facilities=facilities if args.facility or args.kernel or args.userspace else None,
        since=int(parse_time(args.since)) if args.since else None,
        until=int(parse_time(args.until)) if args.until else None,
    )


def _color(args: argparse.Namespace, terminal: bool) -> bool:
    if args.color in ("always", "never"):
        return bool(args.color == "always")
    return terminal and colour.allowed()


def _follows(args: argparse.Namespace) -> bool:
    return bool(args.follow or args.follow_new)


def _size(text: str) -> int:
    return int(text, 0)


class _Pager:
    """``$PAGER`` (or less) between the lines and a terminal; nothing where there is no terminal."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted and sys.stdout.isatty()

    def __enter__(self) -> Callable[[str], object]:
        if not self._wanted:
            return sys.stdout.write
        import subprocess

        command = os.environ.get("PAGER", "less")
        environment = {"LESS": "FRSX"} | dict(os.environ)
        sys.stdout.flush()
        self._process = subprocess.Popen(
            command, shell=True, stdin=subprocess.PIPE, text=True, errors="surrogateescape", env=environment
        )
        assert self._process.stdin is not None
        return self._process.stdin.write

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._wanted:
            self._process.communicate()

"""The shell's tools on the kernel as a whole: free, uname, uptime, sleep, reboot, and help."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

from kobox.shell.command import Command, Failed, Io, Output, Table, split_options
from kobox.shell.text_tools import encoded

_KIB = 1024
_NAP = 5.0
_UNITS = {"b": 1, "k": _KIB, "m": _KIB**2, "g": _KIB**3}


# --- free ------------------------------------------------------------------------------------------------------------


def free(io: Io, arguments: Sequence[str]) -> Output:
    options, operands = split_options(arguments, "bkmghtwM")
    if operands:
        raise Failed(f"{operands[0]}: free takes no operands", 2)
    facts = parse_meminfo(io.kernel.read("/proc/meminfo").decode("latin-1"))
    unit = next((size for letter, size in _UNITS.items() if letter in options), _KIB)
    shown: Callable[[int], str] = human if "h" in options else lambda size: str(size // unit)
    modules = io.kernel.modules
    yield encoded(free_text(facts, shown, wide="w" in options, total="t" in options))
    yield encoded(_row("Modules:", ["", shown(sum(module.size for module in modules))]))
    if "M" in options:
        rows = sorted(modules, key=lambda module: (-module.size, module.name))
        yield from (encoded(_row(f"  {module.name}:", ["", shown(module.size)])) for module in rows)
    return 0


def parse_meminfo(text: str) -> dict[str, int]:
    """``/proc/meminfo`` in bytes, by name."""
    facts = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            facts[name] = int(words[0]) * (_KIB if words[1:] == ["kB"] else 1)
    return facts


def free_text(facts: dict[str, int], shown: Callable[[int], str], wide: bool = False, total: bool = False) -> str:
    """The table of procps 4: used is what is not available; the cache includes what slabs can give back."""
    get = facts.get
    memory, available, empty = get("MemTotal", 0), get("MemAvailable", get("MemFree", 0)), get("MemFree", 0)
    buffers, cache = get("Buffers", 0), get("Cached", 0) + get("SReclaimable", 0)
    swap, swap_free = get("SwapTotal", 0), get("SwapFree", 0)
    used = memory - available
    middle = {"buffers": buffers, "cache": cache} if wide else {"buff/cache": buffers + cache}
    titles = ["total", "used", "free", "shared", *middle, "available"]
    lines = [_row("", titles)]
    numbers = [memory, used, empty, get("Shmem", 0), *middle.values(), available]
    lines.append(_row("Mem:", [shown(number) for number in numbers]))
    lines.append(_row("Swap:", [shown(number) for number in (swap, swap - swap_free, swap_free)]))
    if total:
        sums = (memory + swap, used + swap - swap_free, empty + swap_free)
        lines.append(_row("Total:", [shown(number) for number in sums]))
    return "".join(lines)


def _row(title: str, cells: Iterable[str]) -> str:
    text = f"{title:<9}"
    for number, cell in enumerate(cells):
        text += f"{cell:>{max(20 - len(title), 1) if number == 0 and len(title) > 9 else 11 if number == 0 else 12}}"
    return text + "\n"


def human(size: int) -> str:
    """At most five characters: ``512B``, ``3.2Mi``, ``431Mi``."""
    if size < 1000:
        return f"{size}B"
    value = float(size)
    for unit in ("Ki", "Mi", "Gi", "Ti", "Pi"):
        value /= _KIB
        for text in (f"{value:.1f}{unit}", f"{int(value)}{unit}"):
            if len(text) <= 5:
                return text
    return f"{int(value)}Pi"


# --- time and the machine --------------------------------------------------------------------------------------------

_UNAME = (("s", "sysname"), ("n", "nodename"), ("r", "release"), ("v", "version"), ("m", "machine"))


def uname(io: Io, arguments: Sequence[str]) -> Output:
    options, _ = split_options(arguments, "asnrvm")

    def kernel_file(name: str) -> str:
        return io.kernel.read(f"/proc/sys/kernel/{name}").decode("latin-1").strip()

    facts: dict[str, Callable[[], str]] = {
        "s": lambda: kernel_file("ostype"),
        "n": lambda: kernel_file("hostname"),
        "r": lambda: io.kernel.release,
        "v": lambda: kernel_file("version"),
        "m": lambda: "x86_64",
    }
    wanted = [letter for letter, _ in _UNAME if letter in options or "a" in options] or ["s"]
    yield encoded(" ".join(facts[letter]() for letter in wanted) + "\n")
    return 0


def uptime(io: Io, arguments: Sequence[str]) -> Output:
    now = io.kernel.now
    yield encoded(f"up {now:.6f} seconds of virtual time\n")
    return 0


def sleep(io: Io, arguments: Sequence[str]) -> Output:
    if len(arguments) != 1:
        raise Failed("sleep SECONDS", 2)
    try:
        seconds = float(arguments[0].removesuffix("s"))
    except ValueError:
        raise Failed(f"invalid time interval '{arguments[0]}'", 2) from None
    if not 0 <= seconds < 1e9:
        raise Failed(f"invalid time interval '{arguments[0]}'", 2)
    while seconds > 0:  # in pieces, so that Ctrl-C is heard
        io.kernel.sleep(min(seconds, _NAP))
        seconds -= _NAP
        yield b""
    return 0


def _status(status: int) -> Callable[[Io, Sequence[str]], Output]:
    def run(io: Io, arguments: Sequence[str]) -> Output:
        return status
        yield b""

    return run


SYSTEM_TOOLS = (
    Command("free", "[-bkmgh] [-t] [-w] [-M]", "Memory of the kernel, and what modules take of it; -M each module.",
            free, ("free -h", "free -M"), ("-b", "-k", "-m", "-g", "-h", "-t", "-w", "-M"), ""),
    Command("uname", "[-asnrvm]", "The kernel's name, release and version.", uname, ("uname -r",),
            ("-a", "-s", "-n", "-r", "-v", "-m"), ""),
    Command("uptime", "", "How long the kernel has run, in its own time.", uptime, ("uptime",), (), ""),
    Command("sleep", "SECONDS", "Let virtual time pass: timers and work of modules run. It takes milliseconds.", sleep,
            ("sleep 1.5",), (), ""),
    Command("true", "", "Status 0.", _status(0), ("true && echo yes",), (), ""),
    Command("false", "", "Status 1.", _status(1), ("false || echo no",), (), ""),
    Command(":", "", "Status 0.", _status(0), (": > host:empty",), (), ""),
)  # fmt: skip


# --- help ------------------------------------------------------------------------------------------------------------

_OWN = {
    "cd": Command("cd", "[DIR]", "Change the directory that paths begin at (/ without DIR).", _status(0),
                  ("cd /sys/module/hello/parameters",)),
    "pwd": Command("pwd", "", "The directory that paths begin at.", _status(0), ("pwd",)),
    "exit": Command("exit", "[STATUS]", "Leave the shell. Ctrl-D does the same.", _status(0), ("exit 1",)),
    "set": Command("set", "[-e | +e]", "-e: leave the shell when a command fails. Without: the variables.",
                   _status(0), ("set -e",)),
    "unset": Command("unset", "NAME ...", "Forget variables.", _status(0), ("unset NAME",)),
}  # fmt: skip
"""Help for what the shell does itself."""

GRAMMAR = """\
Words are quoted as in sh: 'as it is', "with $NAME", \\x. Commands are joined by | ; && || and !, redirected with
< > >> 2> 2>&1. $? is the last status, NAME=value sets a variable. * ? and [] match names of the kernel's tree.
Paths are the kernel's own; host:PATH is a file of this machine. Ctrl-C ends what the kernel is doing, Ctrl-D the shell.
"""


def help_command(commands: Callable[[], Table]) -> Command:
    """``help`` about a table that may still grow."""

    def run(io: Io, arguments: Sequence[str]) -> Output:
        known = dict(commands()) | _OWN
        if not arguments:
            width = max(map(len, known))
            for name, command in sorted(known.items()):
                yield encoded(f"{name:<{width}}  {command.about.splitlines()[0]}\n")
            yield encoded("\n" + GRAMMAR + "'help COMMAND' shows options and examples.\n")
            return 0
        for name in arguments:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                raise Failed(f"no command {name!r}", 1, f"did you mean {close[0]!r}?" if close else None)
            yield encoded(known[name].help())
        return 0

    return Command("help", "[COMMAND ...]", "What there is, and how it is used.", run, ("help grep",), (), "commands")

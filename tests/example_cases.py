"""What every example did on a real kernel, and how to have a kernel of ours do the same and compare.

``tests/data/examples-6.1.json`` was recorded from Debian's 6.1 kernel under QEMU: what was done, what came of it, what
the log said, and of an oops what it was, where, and who had called. Taint notices are left out; ``N`` and ``ADDR``
stand for what differs from run to run. Where the real kernel's runs differed (parts of ``tracing`` and ``netdev``) the
common part stands; the values of ``dyndbg``, ``kprobe``, ``platform`` and ``livepatch`` were typed in from one boot.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from example_files import example_file
from kobox.errors import Errno
from kobox.kernel.log import LogRecord
from kobox.kernel.tasks import KernelDead, TaskDied

HERE = Path(__file__).resolve().parent
RECORDED: list[dict[str, Any]] = json.loads((HERE / "data/examples-6.1.json").read_text())["cases"]
OOPS = re.compile(
    r"BUG: (unable|kernel NULL|TASK stack)|kernel tried to execute|general protection|divide error|invalid opcode"
    r"|traps: PANIC|kernel BUG at"
)


class Plays(Protocol):
    """What a kernel must offer to play a case: the bare one and an image do."""

    def start_load(self, data: bytes, parameters: str = ..., flags: int = ...) -> Any: ...
    def finish_load(self, operation: Any) -> int: ...
    def rmmod(self, name: str, *, force: bool = ...) -> None: ...
    def read(self, path: str) -> bytes: ...
    def write(self, path: str, data: bytes | str) -> int: ...
    def sleep(self, seconds: float) -> None: ...
    def dmesg(self) -> Sequence[LogRecord]: ...
    @property
    def tainted(self) -> int: ...
    @property
    def release(self) -> str: ...


def do(kernel: Plays, action: dict[str, Any]) -> object:
    """Do it; what came of it is "ok", what was read, the name of an errno, or how the task ended."""
    try:
        match action["do"]:
            case "insmod":
                data = example_file(kernel.release, action["module"]).read_bytes()
                operation = kernel.start_load(data, action.get("params", ""))
                if action.get("result") == "hangs":
                    kernel.modules_room.run_until_blocked(operation)
                    return "ok" if operation.done else "hangs"
                number = kernel.finish_load(operation)
                return errno.errorcode[-number] if number else "ok"
            case "rmmod":
                kernel.rmmod(action["module"])
            case "write":
                kernel.write(action["path"], action["text"])
            case "read":
                return kernel.read(action["path"]).decode()
            case "sleep":
                kernel.sleep(action["seconds"])
    except Errno as error:
        return error.name
    except KernelDead:
        return "panics"
    except TaskDied:
        return "killed"
    return "ok"


def lines(records: Sequence[LogRecord]) -> list[list[object]]:
    """Level and text, without taint notices."""
    return [[one.level, one.text] for one in records if not re.search(r"taints? kernel|tainting kernel", one.text)]


VARYING = {
    r"(tick \d+ after )\d+ ms": r"\1N ms",
    r"\d+ (nights|processes)": r"N \1",
    r"WARNING: CPU: \d+ PID: \d+ at": "WARNING: at",
    r"insmod/\d+/": "insmod/N/",
    r"(\+0x[0-9a-f]+)/0x[0-9a-f]+": r"\1",
    r"(address: )ffff(?!c0{11})[0-9a-f]{12}": r"\1ADDR",
    r"(RIP: 0010:)0xffffffffc[0-9a-f]+": r"\1ADDR",
    r"\(____ptrval____\)": "ADDR",
    r" \[#\d+\].*": "",
}


def as_recorded(text: str) -> str:
    """Put N and ADDR in the place of what differs from run to run."""
    for pattern, replacement in VARYING.items():
        text = re.sub(pattern, replacement, text)
    return text.strip()


def call_trace(texts: list[str]) -> list[str]:
    """The certain entries of the first call trace, down to where every init is called from."""
    found: list[str] = []
    for text in texts[texts.index("Call Trace:") + 1 :] if "Call Trace:" in texts else []:
        if text.startswith(("do_one_initcall", "kobox_call", "</TASK>", "RIP", "Modules linked in")):
            break
        if not text.startswith(("?", "<")):
            found.append(text)
    return found[:4]


def without_dumps(log: list[list[object]], recorded: list[list[object]]) -> list[list[object]]:
    """The lines that the recording has, where it has only some: a warning's registers are left out, so are tasks."""
    texts = {str(text) for _, text in recorded}
    return [[level, as_recorded(str(text))] for level, text in log if as_recorded(str(text)) in texts]


def expected(case: dict[str, Any]) -> dict[str, object]:
    """What came of a case on the real kernel."""
    results = [action.get("gives", action.get("result", "ok")) for action in case["actions"]]
    oops = {key: case["oops"][key] for key in ("head", "ip", "trace")} if "oops" in case else None
    return {"results": results, "log": case.get("log"), "oops": oops, "tainted": case.get("tainted")}


def play(case: dict[str, Any], kernel: Plays) -> dict[str, object]:
    """Do what was done; what came of it, in the form of ``expected``. What was not recorded is None here, too."""
    before = len(kernel.dmesg())
    results = [do(kernel, action) for action in case["actions"]]
    log = lines(kernel.dmesg()[before:])
    print("\n".join(f"<{level}>{text}" for level, text in log))
    oops = case.get("oops")
    first = next((i for i, (_, text) in enumerate(log) if oops and OOPS.match(str(text))), len(log))
    return {
        "results": results,
        "log": without_dumps(log[:first], case["log"]) if "log" in case else None,
        "oops": first_oops([as_recorded(str(text)) for _, text in log[first:]], case["oops"])
        if "oops" in case
        else None,
        "tainted": kernel.tainted if "tainted" in case else None,
    }


def first_oops(texts: list[str], recorded: dict[str, Any]) -> dict[str, object]:
    """What it is, where, and who called; of what it is only lines that the recording has."""
    heads = [text for text in texts if text in recorded["head"]]
    places = [text.removeprefix("RIP: 0010:") for text in texts if text.startswith("RIP: 0010:")]
    return {
        "head": heads[: len(recorded["head"])],
        "ip": places[0] if places else None,
        "trace": call_trace(texts),
    }

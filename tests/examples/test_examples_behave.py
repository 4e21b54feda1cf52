"""Every example does in the kobox kernel what it did on a real one.

``tests/data/examples-6.1.json`` was recorded from Debian's 6.1 kernel under QEMU: what was done, what came of it, what
the log said, and of an oops what it was, where, and who had called. Taint notices are left out; ``N`` and ``ADDR``
stand for what differs from run to run.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kobox
from kobox.box import Kernel
from kobox.errors import Errno
from kobox.kernel.log import LogRecord
from kobox.kernel.tasks import KernelDead, TaskDied

HERE = Path(__file__).resolve()
PREBUILT = HERE.parents[2] / "examples/prebuilt"
CASES: list[dict[str, Any]] = json.loads((HERE.parents[1] / "data/examples-6.1.json").read_text())["cases"]
OOPS = re.compile(
    r"BUG: (unable|kernel NULL|TASK stack)|kernel tried to execute|general protection|divide error|invalid opcode"
    r"|traps: PANIC|kernel BUG at"
)

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def booted(debian_root: Path) -> Iterator[Kernel]:
    with kobox.boot(debian_root, check_memory=False) as kernel:
        if kernel.release != "6.1.0-56-amd64":
            pytest.skip(f"recorded from 6.1.0-56-amd64, the archive has moved on to {kernel.release}")
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def kernel(booted: Kernel) -> Kernel:
    booted.reset()
    return booted


def do(kernel: Kernel, action: dict[str, Any]) -> object:
    """Do it; what came of it is "ok", what was read, the name of an errno, or how the task ended."""
    try:
        match action["do"]:
            case "insmod":
                operation = kernel.start_load(
                    (PREBUILT / f"{action['module']}.ko").read_bytes(), action.get("params", "")
                )
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


def lines(records: list[LogRecord]) -> list[list[object]]:
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
        if text.startswith(("do_one_initcall", "</TASK>", "RIP", "Modules linked in")):
            break
        if not text.startswith(("?", "<")):
            found.append(text)
    return found[:4]


def without_dumps(log: list[list[object]], recorded: list[list[object]]) -> list[list[object]]:
    """The lines that the recording has, where it has only some: a warning's registers are left out, so are tasks."""
    texts = {str(text) for _, text in recorded}
    return [[level, as_recorded(str(text))] for level, text in log if as_recorded(str(text)) in texts]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_an_example_does_what_it_did_on_a_real_kernel(case: dict[str, Any], kernel: Kernel) -> None:
    mark = kernel.booted.log.mark()
    for action in case["actions"]:
        expected = action.get("gives", action.get("result", "ok"))
        assert do(kernel, action) == expected, action
    log = lines(kernel.booted.log.since(mark))
    print("\n".join(f"<{level}>{text}" for level, text in log))
    first = next((i for i, (_, text) in enumerate(log) if "oops" in case and OOPS.match(str(text))), len(log))
    if "log" in case:
        assert without_dumps(log[:first], case["log"]) == case["log"]
    if "oops" in case:
        texts, oops = [as_recorded(str(text)) for _, text in log[first:]], case["oops"]
        assert [text for text in texts if text in oops["head"]][: len(oops["head"])] == oops["head"]
        assert next(text for text in texts if text.startswith("RIP: 0010:")) == f"RIP: 0010:{oops['ip']}"
        assert call_trace(texts) == oops["trace"]
    if "tainted" in case:
        assert kernel.tainted == case["tainted"]

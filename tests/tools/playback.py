"""A kernel that answers what a recording says it answered: the replayer must find no difference on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.golden_compare import recorded_entry
from tools.golden_kernel import Answer, Entry, Files, Record


class Playback:
    """Every call is answered from the step whose turn it is; ``tree`` of a watched path before and after it."""

    def __init__(self, case: Mapping[str, Any]) -> None:
        self.steps = list(case["steps"])
        self.next = 0
        self.state: dict[str, Entry] = {}
        self.current: Mapping[str, Any] = {}
        self.pending_log: list[Record] = []
        self.made = False

    def advance(self) -> Answer:
        step = self.current = self.steps[self.next]
        self.next += 1
        self.made = True
        entries = {path: recorded_entry(raw) for path, raw in step.get("sysfs", {}).items()}
        if step.get("sysfs_kind") == "full":
            self.state = entries
        else:
            for root in step.get("sysfs_removed_roots", []):
                self.state = {
                    path: entry
                    for path, entry in self.state.items()
                    if path != root and not path.startswith(root + "/")
                }
            self.state |= entries
        self.pending_log = [Record(line.get("level"), line["text"]) for line in step["dmesg"]]
        output = step["output"].encode("latin-1") if "output" in step else None
        value = -step["errno_num"] if step.get("errno_num") else step["ret"]
        died = bool(step.get("guest_died") or step.get("guest_hung"))
        opened = not step.get("open_failed")
        return Answer(value, output, step.get("killed_by_signal"), bool(step.get("hung")), died, opened)

    def finit_module(self, data: bytes, params: bytes, flags: int) -> Answer:
        return self.advance()

    def init_module(self, data: bytes, params: bytes, length: int | None) -> Answer:
        return self.advance()

    def delete_module(self, name: bytes, flags: int) -> Answer:
        return self.advance()

    def special(self, action: str, kind: str, data: bytes, name: bytes) -> Answer:
        return self.advance()

    def read(self, path: str) -> Answer:
        return self.advance()

    def write(self, path: str, data: bytes, uid: int) -> Answer:
        return self.advance()

    def open(self, slot: int, path: str, flags: int) -> Answer:
        return self.advance()

    def close(self, slot: int) -> Answer:
        return self.advance()

    def read_slot(self, slot: int, count: int) -> Answer:
        return self.advance()

    def write_slot(self, slot: int, data: bytes) -> Answer:
        return self.advance()

    def seek_slot(self, slot: int, offset: int, whence: int) -> Answer:
        return self.advance()

    def ioctl_slot(self, slot: int, request: int, argument: int) -> Answer:
        return self.advance()

    def start(self, slot: int, step: Mapping[str, Any], files: Files) -> Answer:
        return self.advance()

    def wait(self, slot: int, milliseconds: int) -> Answer:
        return self.advance()

    def sleep(self, milliseconds: int) -> Answer:
        return self.advance()

    def shell(self, line: str) -> Answer:
        return self.advance()

    def kallsyms(self, module: str) -> list[str]:
        self.advance()
        return list(self.current["kallsyms"])

    def tree(self, path: str) -> dict[str, Entry]:
        self.advance()
        return {name: recorded_entry(raw) for name, raw in self.current["tree"].items()}

    def watched(self, path: str) -> dict[str, Entry]:
        return {name: entry for name, entry in self.state.items() if name == path or name.startswith(path + "/")}

    def proc_modules(self) -> list[str] | None:
        return None if self.current.get("modules_locked") else list(self.current["proc_modules"] or [])

    def tainted(self) -> int | None:
        """The replayer asks just before it makes a step, and once more when it looked at everything."""
        value: int | None
        if self.made:
            self.made, value = False, self.current["tainted_after"]
        else:
            value = self.steps[self.next]["tainted_before"]
        return value

    def log(self) -> list[Record]:
        lines, self.pending_log = self.pending_log, []
        return lines

    def uevents(self) -> list[list[str]]:
        return [list(message) for message in self.current.get("uevents", [])]

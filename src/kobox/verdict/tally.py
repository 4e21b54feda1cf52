"""What is found on a file's way through a load: reasons, notes, the kernel's answer and log, and its taints.

``Tally.stop`` notes the kernel's answer once; reasons go on being collected behind it, and from then on nothing is
logged or tainted any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kobox.abi import taint
from kobox.errors import Errno
from kobox.link import Exports, Finding, LogLine, Refusal
from kobox.verdict.fixes import fix_of
from kobox.verdict.host import Host
from kobox.verdict.records import Line, Note, Reason, Subject

LOCKDEP = "Disabling lock debugging due to kernel taint"


@dataclass(slots=True)
class State:
    """What loading has done to the kernel so far. ``exporters`` are modules, newest first."""

    taints: int = 0
    said: set[str] = field(default_factory=set)
    exporters: list[Exports] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


class Tally:
    """``step`` is where the load is now, ``name`` the module's. ``taints`` is the kernel's mask as if nothing had
    refused the module, ``kernel_taints`` what it really comes to, ``own_taints`` the module's own."""

    def __init__(self, subject: Subject, host: Host, state: State) -> None:
        self.subject, self.host, self.state = subject, host, state
        self.reasons: list[Reason] = []
        self.notes: list[Note] = []
        self.log: list[Line] = []
        self.reached = True
        self.errno = 0
        self.step = "permission"
        self.name = ""
        self.taints = self.kernel_taints = state.taints
        self.own_taints = 0

    def say(self, findings: Iterable[Finding]) -> None:
        """Log and taint, as far as the kernel comes this far; what it would taint further on is kept as well."""
        for finding in findings:
            if isinstance(finding, LogLine):
                self._print(finding)
                continue
            mask = 1 << finding.bit
            self.taints |= mask
            if finding.of_module:
                self.own_taints |= mask
            if self.reached:
                self.kernel_taints |= mask
                if finding.lockdep_off:
                    self._print(LogLine(4, LOCKDEP, once=True))
                self._panic(mask)

    def _print(self, line: LogLine) -> None:
        if not self.reached:
            return
        said = line.text.partition(": ")[2] or line.text
        if line.once and said in self.state.said:
            return
        if line.once:
            self.state.said.add(said)
        self.log.append(Line(line.level, line.text))

    def _panic(self, mask: int) -> None:
        if not mask & self.host.policy.panic_on_taint:
            return
        letter = taint.letters(mask)
        text = f"the kernel panics: it taints ({letter}), and panic_on_taint= on the command line names that"
        self.reasons.append(Reason("panic-on-taint", self.step, 0, text, fix_of("panic-on-taint")))
        self.reached = False

    def stop(self, number: int, findings: Iterable[Finding] = ()) -> None:
        """The kernel would answer this now, unless it has answered before."""
        self.say(findings)
        if self.reached:
            self.errno, self.reached = number, False

    def refuse(
        self,
        rule: str,
        number: int,
        text: str,
        findings: Iterable[Finding] = (),
        *,
        items: Sequence[Mapping[str, Any]] = (),
        **names: str,
    ) -> None:
        """A reason that ends its step."""
        findings = tuple(findings)
        context = {"name": self.name, "file": self.subject.file, "release": self.host.image.release} | names
        log = tuple(Line(line.level, line.text) for line in findings if isinstance(line, LogLine))
        self.reasons.append(Reason(rule, self.step, number, text, fix_of(rule, **context), log, items=tuple(items)))
        self.stop(number, findings)

    def note(self, rule: str, text: str) -> None:
        self.notes.append(Note(rule, text))

    def refused(self, rule: str, refusal: Errno, text: str) -> None:
        """A reason made from a rule's own refusal."""
        findings = refusal.findings if isinstance(refusal, Refusal) else ()
        if isinstance(refusal, Refusal) and refusal.crash:
            rule, text = "kernel-crash", f"a real kernel would crash on it: {refusal.why}"
        self.refuse(rule, refusal.number, text, findings)

    def has(self, rule: str) -> bool:
        return any(reason.rule == rule for reason in self.reasons)

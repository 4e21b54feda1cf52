"""What steps say."""

from __future__ import annotations

from kobox.errors import Errno
from kobox.link.findings import LogLine, Refusal, Taint, TaintBit, lines


def test_a_refusal_reads_as_its_lines_and_is_an_errno() -> None:
    refusal = Refusal(8, (LogLine(3, "first"), Taint(TaintBit.OOT), LogLine(4, "second")))
    assert isinstance(refusal, Errno)
    assert str(refusal) == "ENOEXEC: first; second"
    assert [line.text for line in refusal.log] == ["first", "second"]
    assert not refusal.crash


def test_a_refusal_without_lines_says_why() -> None:
    assert str(Refusal(12, why="no memory")) == "ENOMEM: no memory"


def test_lines_leave_out_taints() -> None:
    assert lines([Taint(TaintBit.CRAP), LogLine(4, "x")]) == [LogLine(4, "x")]

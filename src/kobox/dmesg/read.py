"""Log texts to records: the buffer of ``syslog(2)``, records of ``/dev/kmsg``, and the JSON that dmesg and kobox write.

A record whose text names no level or facility has -1 there. Times are nanoseconds, as everywhere in kobox.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from kobox.dmesg.names import FACILITIES, LEVELS
from kobox.errors import BadFile
from kobox.kernel.log import LogRecord

_PRIORITY = re.compile(r"<\s*([+-]?\d+)(?:.|\Z)", re.DOTALL)
_TIME = re.compile(r"\[\s*(\d+)\.\s*(\d+)\] ?")
_NEXT = re.compile(r"\n(?=<)")
_HEX = re.compile(rb"\\x([0-9a-fA-F]{2})")


def parse_log_file(data: bytes, name: str) -> list[LogRecord]:
    """A saved log of any of these forms; ``name`` is for errors."""
    if data.lstrip()[:1] in (b"{", b"["):
        return _from_json(data, name)
    return list(parse_syslog(data.decode("utf-8", "surrogateescape")))


def parse_syslog(text: str) -> Iterator[LogRecord]:
    """Records of a raw buffer: each begins with ``<PRIORITY>`` at the start of a line, so that text may have lines."""
    records = _NEXT.split(text.rstrip("\0").removesuffix("\n")) if text else ()
    for sequence, record in enumerate(record for record in records if record):
        facility = level = -1
        if record.startswith("<"):
            found = _PRIORITY.match(record)
            if found is not None:
                facility, level = split_priority(int(found[1]))
            record = record[found.end() if found is not None else 1 :]
        nanoseconds = 0
        if record[:2] and record[0] == "[" and (record[1:2] == " " or record[1:2].isdigit()):
            at = _TIME.match(record)
            nanoseconds = (int(at[1]) * 1_000_000 + int(at[2])) * 1000 if at is not None else 0
            record = record[at.end() if at is not None else 1 :]
        yield LogRecord(sequence, nanoseconds, level, record, facility)


def parse_kmsg(record: bytes) -> LogRecord | None:
    """One record as ``read`` of ``/dev/kmsg`` gives it: ``PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,…];TEXT`` and then
    lines ``KEY=VALUE``, which are passed over; None where it is not one."""
    head, semicolon, rest = record.partition(b";")
    fields = head.split(b",")
    if not semicolon or len(fields) < 3 or not all(field.isdigit() for field in fields[:3]):
        return None
    text = _HEX.sub(lambda found: bytes.fromhex(found[1].decode()), rest.split(b"\n", 1)[0])
    facility, level = split_priority(int(fields[0]))
    return LogRecord(
        sequence=int(fields[1]),
        time=int(fields[2]) * 1000,
        level=level,
        text=text.decode("utf-8", "surrogateescape"),
        facility=facility,
        continued=len(fields) > 3 and b"c" in fields[3],
    )


def split_priority(priority: int) -> tuple[int, int]:
    """(facility, level); a facility that has no name is -1."""
    facility = priority >> 3 & 0x7F
    return (facility if facility < len(FACILITIES) else -1), priority & 7


def _from_json(data: bytes, name: str) -> list[LogRecord]:
    """What ``dmesg --json`` or ``kobox run --json`` wrote."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise BadFile(name, "", f"neither a log nor JSON ({error})") from None
    rows = (value.get("dmesg") or value.get("log")) if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise BadFile(name, "", "JSON without a log", hint="as dmesg --json or kobox run --json write it")
    records = []
    for sequence, row in enumerate(rows):
        try:
            records.append(_from_row(sequence, row))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BadFile(name, f"record {sequence}", "not a log record", found=row) from None
    return records


def _from_row(sequence: int, row: dict[str, Any]) -> LogRecord:
    """``pri``/``fac``/``time``/``msg`` of dmesg, ``level``/``time``/``text`` of kobox."""
    time = round(float(row.get("time") or 0) * 1e6) * 1000
    if "text" in row:
        return LogRecord(sequence, time, int(row.get("level", -1)), str(row["text"]), int(row.get("facility", 0)))
    priority = row.get("pri")
    if priority is None:
        return LogRecord(sequence, time, -1, str(row["msg"]), -1)
    if isinstance(priority, str):
        facility, level = FACILITIES.index(row["fac"]), LEVELS.index(priority)
    else:
        facility, level = split_priority(int(priority))
    return LogRecord(sequence, time, level, str(row["msg"]), facility)

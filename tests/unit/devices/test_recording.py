"""Recordings of a device as files."""

from __future__ import annotations

import json

import pytest

from kobox.devices.edu import Edu
from kobox.devices.recording import Event, Recording, Replay, recording
from kobox.errors import BadFile


def recorded() -> Recording:
    edu = Edu()
    with recording(edu) as record:
        edu.write_region(0, 4, 4, 0x1234)
        edu.read_region(0, 4, 4)
        edu.write_region(0, 0x60, 4, 1)
        edu.write_region(0, 0x64, 4, 1)
    return record


def test_what_passes_is_told_in_words() -> None:
    assert recorded().lines() == [
        "write liveness 0x1234",
        "read liveness 0xffffedcb",
        "write interrupt_raise 0x1",
        "interrupt 0",
        "write interrupt_acknowledge 0x1",
        "lower",
    ]
    assert str(Event("to RAM", at=0x1000, size=16)) == "to RAM 0x1000, 16 bytes"
    assert str(Event("read", 1, 8, 4, 2)) == "read BAR 1 + 0x8 0x2"


def test_a_kept_recording_is_the_same_device_with_the_same_story() -> None:
    record = recorded()
    replay = Replay.from_json(record.to_json())
    assert replay.shape == record.shape
    assert replay.left == 4
    replay.write_region(0, 4, 4, 0x1234)
    assert replay.read_region(0, 4, 4) == 0xFFFF_EDCB
    with pytest.raises(
        AssertionError, match="2 recorded accesses did not happen, the next one is: write interrupt_raise"
    ):
        replay.check()
    replay.write_region(0, 0x60, 4, 1)
    assert replay.line_level
    replay.write_region(0, 0x64, 4, 1)
    assert not replay.line_level
    replay.check()
    replay.read_region(0, 4, 4)
    with pytest.raises(AssertionError, match="recorded was: nothing more"):
        replay.check()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', '{"format": 2}'])
def test_what_is_no_recording_is_refused(text: str) -> None:
    with pytest.raises(BadFile, match="recording"):
        Replay.from_json(text)


def test_a_recording_with_a_row_cut_off_is_refused() -> None:
    kept = json.loads(recorded().to_json())
    kept["events"][1].pop()
    with pytest.raises(BadFile):
        Replay.from_json(json.dumps(kept))

"""What the host is asked to forget when it holds too many files."""

from __future__ import annotations

import threading

from kobox.mount.holding import Holding


def test_the_files_known_longest_are_forgotten_but_not_open_ones() -> None:
    asked: list[tuple[str, bytes]] = []
    done = threading.Event()

    def ask(parent: str, name: bytes) -> None:
        asked.append((parent, name))
        if len(asked) == 2:
            done.set()

    holding: Holding[str] = Holding(lambda node: node == "0", most=8)
    holding.ask = ask
    for number in range(9):
        holding.note(str(number), "folder", b"%d" % number)
    assert done.wait(10)
    assert asked == [("folder", b"1"), ("folder", b"2")]
    holding.forget("1")
    holding.forget("2")
    assert len(holding) == 7


def test_one_request_for_room_at_a_time_and_none_below_the_limit() -> None:
    asked: list[bytes] = []
    go = threading.Event()

    def ask(parent: str, name: bytes) -> None:
        assert go.wait(10)
        asked.append(name)

    holding: Holding[str] = Holding(lambda node: False, most=4)
    holding.ask = ask
    for number in range(4):
        holding.note(str(number), "folder", b"%d" % number)
    assert "kobox-forget" not in {thread.name for thread in threading.enumerate()}
    for number in range(4, 20):
        holding.note(str(number), "folder", b"%d" % number)
    assert [thread.name for thread in threading.enumerate()].count("kobox-forget") == 1
    go.set()
    for thread in threading.enumerate():
        if thread.name == "kobox-forget":
            thread.join(10)
    assert asked == [b"0"]

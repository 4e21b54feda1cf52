"""The watchdog's stop may come at any moment, also after the run it was meant for: the guest must not notice."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

import kobox


@pytest.mark.image
def test_stops_out_of_the_blue_are_not_taken_for_a_halted_cpu(debian_root: Path) -> None:
    with kobox.boot(debian_root) as kernel:
        cpu = kernel.guest.machine.cpu
        over = threading.Event()

        def storm() -> None:
            while not over.is_set():
                cpu.stop()
                time.sleep(0.0003)

        thread = threading.Thread(target=storm)
        thread.start()
        try:
            before = kernel.now
            for _ in range(100):
                assert kernel.read("/proc/meminfo").startswith(b"MemTotal:")
                kernel.sleep(0.01)
        finally:
            over.set()
            thread.join()
        assert kernel.now - before >= 1
        assert not [one.text for one in kernel.dmesg() if re.search("BUG|WARNING|lockup|stall", one.text)]

"""Constants of wide integers."""

from __future__ import annotations

import pytest

from kobox.link.lanes import LANE, U32, halves, ones


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 256, 257, 4096])
def test_every_lane_holds_its_constant_and_no_other_bit_is_set(count: int) -> None:
    assert ones(count).to_bytes(LANE * count, "little") == (1).to_bytes(LANE, "little") * count
    assert halves(count).to_bytes(LANE * count, "little") == U32.to_bytes(LANE, "little") * count

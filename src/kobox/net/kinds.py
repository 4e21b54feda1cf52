"""What some kinds of links take besides their name: the ``data`` of ``Net.add_link``, by the names that ``ip link``
has for it. Follows include/uapi/linux/if_link.h and if_bonding.h."""

from __future__ import annotations

from kobox.errors import UsageError
from kobox.net.netlink import Value

BOND_MODES = ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")
_BOND_MODE, _BOND_MIIMON = 1, 3
_BRIDGE_FORWARD_DELAY, _BRIDGE_STP = 1, 5


def bond(mode: str = "balance-rr", miimon: int = 0) -> dict[int, Value]:
    """``type bond mode MODE miimon MILLISECONDS``: how often its ports' carriers are looked at."""
    if mode not in BOND_MODES:
        raise UsageError(f"no bonding mode {mode!r}, only {', '.join(BOND_MODES)}")
    return {_BOND_MODE: bytes((BOND_MODES.index(mode),)), _BOND_MIIMON: miimon}


def bridge(stp: bool = False, forward_delay: int = 1500) -> dict[int, Value]:
    """``type bridge stp_state STP forward_delay HUNDREDTHS``: without STP ports forward at once."""
    return {_BRIDGE_STP: int(stp), _BRIDGE_FORWARD_DELAY: forward_delay}

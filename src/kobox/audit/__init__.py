"""Policy with proof: which modules can be reached on a system, how, and what stops them.

``audit_system`` simulates every way by the same resolver that plans loads; nothing is guessed from the presence of a
line. Needs no kernel. Profiles are data files; findings leave as text, JSON or SARIF.
"""

from __future__ import annotations

"""Line coverage of modules: from code that ran (``kernel.coverage``) to source lines, and reports of them.

``lines`` turns code into lines, ``collected`` adds tests up, ``lcov``, ``html`` and ``table`` show what came of it.
"""

from __future__ import annotations

from kobox.debug.coverage.collected import Collected, FileCoverage
from kobox.debug.coverage.lines import ModuleLines

__all__ = ["Collected", "FileCoverage", "ModuleLines"]

"""DWARF 2 to 5 of a module that is not linked yet: address to file, line, inlined functions, variables, members.

Written for ``.ko`` files: sections all begin at address 0 there and the debug data itself waits for relocation, which
general readers do slowly or not at all. ``ModuleDebug`` is the door; the other files are its parts.
"""

from __future__ import annotations

from kobox.debug.dwarf.module import CodedLine, ModuleDebug, Place, Variable
from kobox.debug.dwarf.structs import read_structs

__all__ = ["CodedLine", "ModuleDebug", "Place", "Variable", "read_structs"]

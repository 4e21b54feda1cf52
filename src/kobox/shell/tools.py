"""Every command that needs nothing but a kernel; the tools of kmod and dmesg are added by the face."""

from __future__ import annotations

from kobox.shell.command import table
from kobox.shell.grep import GREP
from kobox.shell.system_tools import SYSTEM_TOOLS
from kobox.shell.text_tools import TEXT_TOOLS
from kobox.shell.tree_tools import TREE_TOOLS

TOOLS = table((*TREE_TOOLS, *TEXT_TOOLS, GREP, *SYSTEM_TOOLS))

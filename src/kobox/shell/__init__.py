"""A shell in front of a kernel: sh's words, pipes and redirections, small tools on the kernel's own tree, completion.

It knows a kernel only by its face, in this process or in another one; the tools of kmod and dmesg are handed in by
whoever opens it. Nothing here reads a terminal.
"""

from kobox.shell.command import Command, Failed, Io, Output, Table
from kobox.shell.completion import Completer, Found, ModuleNames
from kobox.shell.interpreter import Exit, Shell
from kobox.shell.kernel import ShellKernel
from kobox.shell.syntax import Incomplete, SyntaxFault, parse
from kobox.shell.system_tools import help_command
from kobox.shell.tools import TOOLS

__all__ = [
    "TOOLS",
    "Command",
    "Completer",
    "Exit",
    "Failed",
    "Found",
    "Incomplete",
    "Io",
    "ModuleNames",
    "Output",
    "Shell",
    "ShellKernel",
    "SyntaxFault",
    "Table",
    "help_command",
    "parse",
]

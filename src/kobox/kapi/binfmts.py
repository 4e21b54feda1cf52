"""``linux/binfmts.h``: programs that the kernel executes. There is no user space; Python answers for the known ones."""

from __future__ import annotations

from kobox.abi.c import char_p, int_, void_p
from kobox.abi.declare import ExportTable, Fidelity
from kobox.kernel.guest import Guest

binfmts = ExportTable("linux/binfmts.h")


@binfmts.export(fidelity=Fidelity.MODEL)
def kernel_execve(k: Guest, filename: char_p, argv: void_p, envp: void_p) -> int_:
    """Model: the file is not looked for; a program that Python knows runs as task work before the task would enter user
    mode, any other is ENOENT. Follows fs/exec.c."""
    return k.helpers.execute(filename, argv, envp)

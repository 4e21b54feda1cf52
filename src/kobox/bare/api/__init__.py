"""What a module can call on the bare kernel: one table of typed functions per kernel header, listed in ``TABLES``."""

from __future__ import annotations

from kobox.abi.declare import ExportTable
from kobox.bare.api.kernel import kernel
from kobox.bare.api.lists import lists
from kobox.bare.api.locks import locks
from kobox.bare.api.misc import miscdevice
from kobox.bare.api.modules import modules
from kobox.bare.api.printk import printk
from kobox.bare.api.slab import slab
from kobox.bare.api.strings import strings
from kobox.bare.api.time import timers
from kobox.bare.api.uaccess import uaccess
from kobox.bare.api.work import workqueue

TABLES: tuple[ExportTable, ...] = (
    printk, kernel, slab, lists, strings, locks, timers, workqueue, uaccess, miscdevice, modules,
)  # fmt: skip

"""The tables in use, in one list: what an image adopts, in the order of adoption."""

from __future__ import annotations

from kobox.abi.declare import ExportTable
from kobox.kapi.arch import arch
from kobox.kapi.binfmts import binfmts
from kobox.kapi.delay import delay

IMAGE_TABLES: tuple[ExportTable, ...] = (arch, delay, binfmts)

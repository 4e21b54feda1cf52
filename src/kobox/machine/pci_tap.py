"""Somebody between a PCI function and the machine: sees each access, interrupt and DMA, and may change it."""

from __future__ import annotations


class Tap:
    """Lets everything pass. Override what is of interest; several on one function are asked in turn."""

    def read(self, bar: int, offset: int, size: int, value: int) -> int:
        """The driver has read ``value``: what it gets instead."""
        return value

    def write(self, bar: int, offset: int, size: int, value: int) -> int | None:
        """The driver writes ``value``: what arrives; None: nothing."""
        return value

    def interrupt(self, vector: int) -> bool:
        """The device interrupts: whether that arrives."""
        return True

    def lower(self) -> None:
        """The device has no reason for an interrupt by line any more."""

    def dma(self, address: int, size: int, write: bool) -> int:
        """The device is about to access memory: at which address."""
        return address

    def moved(self, address: int, data: bytes, write: bool) -> None:
        """The device has read or written these bytes by ``dma_read`` or ``dma_write`` (queues and bulk transfers, whose
        memory is used in place, are told by ``dma`` only)."""

"""The computer under the guest: CPU (Unicorn), physical memory, page map, traps, clock and interrupts. Nothing of
Linux."""

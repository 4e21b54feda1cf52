"""What a machine's UEFI firmware keeps and checks: variables, signature lists, Authenticode, and the boot chain.

Bytes and records; no CPU and no guest. ``bringup.efi`` puts the variables before a kernel that boots.
"""

"""A guest that resets the machine is dead, and says so; the process lives, and ``reset`` brings the kernel back."""

from __future__ import annotations

import pytest

import kobox
from example_files import example_file
from kobox.kapi.arch import Restarted
from kobox.kernel.tasks import KernelDead


def test_a_kernel_that_restarts_the_machine_is_gone_until_it_is_reset(kobox_image: str) -> None:
    with kobox.boot(kobox_image) as kernel:
        kernel.mark_pristine()
        with pytest.raises(Restarted, match="restarted the machine"):
            kernel.call("emergency_restart")
        with pytest.raises(KernelDead, match="restarted the machine"):
            kernel.read("/proc/version")
        kernel.reset()
        kernel.insmod(example_file(kernel.release, "hello"))
        assert [module.name for module in kernel.modules] == ["hello"]

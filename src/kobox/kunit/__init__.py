"""KUnit's tests in module files: run in fresh kernels, their KTAP read out of the kernel's log, one document of all."""

from __future__ import annotations

from kobox.kunit.ktap import Test, read_ktap
from kobox.kunit.run import ModuleTests, TestReport, run_tests

__all__ = ["ModuleTests", "Test", "TestReport", "read_ktap", "run_tests"]

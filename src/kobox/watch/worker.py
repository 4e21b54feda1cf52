"""The worker process: kernels that are booted and kept warm; each job runs in a fork of this process.

A fork shares the kernels' memory until it writes to it, so each job finds them as they were after boot, at the cost of
a few milliseconds, and whatever it does to its process, pytest or the kernel ends with it. Run by ``client`` as
``python -m kobox.watch.worker FD``.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
import time
from multiprocessing.connection import Connection, Pipe, wait
from typing import IO, Any

from kobox.box import Kernel, boot
from kobox.errors import KoboxError
from kobox.runner import run_in
from kobox.watch.records import Cancel, Failed, Finished, Job, Progress, Ready, Setup, Test

_OUTPUT_BYTES = 16_384
_TESTS_FAILED, _NO_TESTS = 1, 5
"""pytest's exit codes that need no output to be understood, besides 0."""


class WarmKernels:
    """The booted kernels, by image; and whether their code was translated by a first load."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.kernels: dict[str, Kernel] = {}
        self._warm = False

    def boot(self, connection: Connection) -> None:
        for image in self.setup.images:
            kernel = boot(image, append=self.setup.append, progress=lambda text: connection.send(Progress(text)))
            kernel.mark_pristine()
            self.kernels[image] = kernel

    def warm_up(self, job: Job) -> None:
        """Load once, here, what a fork has just loaded and survived: the code that a load runs is translated then, and
        later forks have it. Nothing depends on whether it succeeds."""
        if self._warm:
            return
        self._warm = True
        for image, modules in job.modules:
            for path in modules:
                with contextlib.suppress(KoboxError, OSError):
                    run_in(self.kernels[image], path, job.parameters)
                self.kernels[image].reset()


def main() -> int:
    """Serve until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the loop, which ends this process by hanging up
    connection = Connection(int(sys.argv[1]))
    setup: Setup = connection.recv()
    start = time.monotonic()
    warm = WarmKernels(setup)
    try:
        warm.boot(connection)
        _import_pytest()
    except (KoboxError, OSError) as error:
        connection.send(Failed(str(error)))
        return 1
    sys.dont_write_bytecode = True  # its time stamps are whole seconds; a test is saved twice in less
    gc.collect()
    gc.freeze()  # objects that are never looked at are never copied in a fork
    connection.send(Ready(time.monotonic() - start))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job = connection.recv()
            if isinstance(job, Job):
                finished = _run_forked(warm, job, connection)
                connection.send(finished)
                if finished.code == 0:
                    warm.warm_up(job)
    return 0


def _run_forked(warm: WarmKernels, job: Job, connection: Connection) -> Finished:
    """Run the job in a fork and hand on what it says. When the loop hangs up, the fork goes too."""
    ours, theirs = Pipe(duplex=False)
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            ours.close()
            _child(warm, job, theirs, output)
        theirs.close()
        try:
            _hand_on(pid, ours, connection)
        except (EOFError, BrokenPipeError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        finally:
            ours.close()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code in (0, _TESTS_FAILED, _NO_TESTS):
            return Finished(code)
        output.seek(max(0, output.seek(0, os.SEEK_END) - _OUTPUT_BYTES))
        return Finished(code, output.read().decode("utf-8", "replace"))


def _hand_on(pid: int, child: Connection, connection: Connection) -> None:
    while True:
        for ready in wait([child, connection]):
            if ready is connection:
                if isinstance(connection.recv(), Cancel):
                    os.kill(pid, signal.SIGKILL)
                continue
            try:
                record = child.recv()
            except (EOFError, OSError):  # it ended, perhaps in the middle of a word
                return
            connection.send(record)


def _child(warm: WarmKernels, job: Job, connection: Connection, output: IO[bytes]) -> None:
    """The fork: never returns."""
    code = 70
    try:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        code = _run(warm, job, connection)
    except BaseException:  # noqa: BLE001  # the border of a process: what is printed is handed on
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        connection.close()
        os._exit(code)


def _run(warm: WarmKernels, job: Job, connection: Connection) -> int:
    if job.pytest_args is not None:
        from kobox.pytest_plugin.warm import run_tests

        def tell(*test: Any) -> None:
            connection.send(Test(*test))

        return run_tests(job.pytest_args, warm.kernels, warm.setup.append, job.coloured, tell)
    ok = True
    for image, modules in job.modules:
        for path in modules:
            kernel = warm.kernels[image]
            kernel.reset()
            report = run_in(kernel, path, job.parameters, why="asked for by --image or added last")
            ok &= report.ok
            connection.send(report)
    return 0 if ok else _TESTS_FAILED


def _import_pytest() -> Any:
    """Import pytest and its plugins before the first fork, where it is installed."""
    try:
        import kobox.pytest_plugin.warm
    except ModuleNotFoundError:
        return None
    kobox.pytest_plugin.warm.import_all()
    return kobox.pytest_plugin.warm


if __name__ == "__main__":
    sys.exit(main())

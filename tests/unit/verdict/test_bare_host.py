"""The bare kernel is judged as it answers itself."""

from __future__ import annotations

from kobox.bare.kernel import BareKernel
from kobox.errors import Errno, GuestError
from kobox.ko import read_module
from kobox.verdict.bare_host import BareHost
from kobox.verdict.records import Subject
from kobox.verdict.session import Session
from paths import EXAMPLES


def test_every_example_is_answered_as_the_bare_kernel_does() -> None:
    host = BareHost()
    met, foretold = {}, {}
    for path in sorted(EXAMPLES.glob("*.ko")):
        needed = [(EXAMPLES / f"{name}.ko").read_bytes() for name in read_module(path).depends]
        kernel, session = BareKernel(), Session(host)
        try:
            for data in needed:
                kernel.init_module(data, "")
                session.load(Subject("needed.ko", data), raw=True)
            kernel.init_module(path.read_bytes(), "")
            met[path.name] = 0
        except Errno as refused:
            reached = kernel.last_load is not None and kernel.last_load.trace[-1].name == "init"
            met[path.name] = 0 if reached else refused.number
        except GuestError:  # one of them crashes on purpose
            met[path.name] = 0
        finally:
            kernel.close()
        foretold[path.name] = session.load(Subject(path.name, path.read_bytes()), raw=True).errno
    assert foretold == met
    assert 0 < sum(not number for number in met.values()) < len(met)


def test_what_only_a_whole_kernel_has_is_said_to_be_in_an_image() -> None:
    verdict = Session(BareHost()).load(Subject("netdev.ko", (EXAMPLES / "netdev.ko").read_bytes()))
    (reason,) = verdict.reasons
    assert reason.rule == "bare-lacks"
    assert "kobox kernel add" in reason.fix

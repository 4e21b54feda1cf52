"""Error numbers agree with the host's where it knows them, and go beyond."""

from __future__ import annotations

import errno

from kobox.abi import errno_names, syscalls


def test_names_agree_with_the_hosts():
    aliases = {"EDEADLOCK": "EDEADLK", "ENOTSUP": "EOPNOTSUPP", "EWOULDBLOCK": "EAGAIN"}
    for number, name in errno.errorcode.items():
        assert errno_names.NAMES[number] == aliases.get(name, name)


def test_the_kernels_own_numbers_have_names():
    assert errno_names.name_of(-517) == "EPROBE_DEFER"
    assert errno_names.name_of(4095) == "E4095"


def test_names_lead_back_to_numbers():
    assert errno_names.number_of("ENOEXEC") == 8
    assert errno_names.number_of("EWOULDBLOCK") == 11


def test_the_error_range_is_seen_in_both_signs():
    assert errno_names.is_error(-22)
    assert errno_names.is_error((1 << 64) - 4095)
    assert not errno_names.is_error((1 << 64) - 4096)
    assert not errno_names.is_error(0)


def test_meanings_are_of_known_errors():
    assert set(errno_names.MODULE_MEANINGS) <= set(errno_names.NUMBERS)


def test_system_calls_have_their_numbers():
    assert syscalls.name_of(0) == "read"
    assert syscalls.name_of(313) == "finit_module"
    assert syscalls.name_of(435) == "clone3"
    assert syscalls.name_of(400) is None

"""The kernel asks for modules by itself and gets them, as on the system that its root directory is."""

from __future__ import annotations

import socket
import stat
import struct
from collections.abc import Callable, Iterator
from errno import ENOENT
from pathlib import Path

import pytest

import kobox
from kobox.box import Kernel
from kobox.errors import Errno, UsageError
from kobox.kernel.records import Autoload

pytestmark = pytest.mark.image

AF_ALG, AF_VSOCK = 38, 40


@pytest.fixture
def boot_with(linux_root: Path, tmp_path: Path) -> Iterator[Callable[[str], Kernel]]:
    """Boots with a root that has the image's modules and this modprobe.d."""
    kernels: list[Kernel] = []

    def boot(config: str) -> Kernel:
        root = tmp_path / "root"
        (root / "etc/modprobe.d").mkdir(parents=True)
        (root / "etc/modprobe.d/test.conf").write_text(config)
        (root / "lib").mkdir()
        (root / "lib/modules").symlink_to(linux_root / "lib/modules")
        kernels.append(kobox.boot(linux_root, root=root))
        return kernels[-1]

    yield boot
    for kernel in kernels:
        kernel.close()


def request_module(kernel: Kernel, name: str, wait: bool = True) -> int:
    """As a module would: the wait status of modprobe, or a negative errno."""
    scratch = kernel.modules_room.loader.env.scratch
    kernel.guest.write(kernel.guest.machine.area.mailbox_addr + 2048, name.encode() + b"\0")
    text = kernel.guest.machine.area.mailbox_addr + 2048
    return kernel.guest.call_int("__request_module", int(wait), scratch(b"%s\0"), text)


def bind_alg(kernel: Kernel, kind: str, name: str) -> int:
    """Ask for an algorithm through an AF_ALG socket; ``kind`` is hash, skcipher, aead or rng."""
    descriptor = kernel.syscalls.checked("socket", "socket", AF_ALG, socket.SOCK_SEQPACKET, 0)
    kernel.syscalls.window.clear()
    address = struct.pack("<H14sII64s", AF_ALG, kind.encode(), 0, 0, name.encode())
    return kernel.syscalls.call("bind", descriptor, kernel.syscalls.window.put(address), len(address))


def the_request(kernel: Kernel, name: str) -> Autoload:
    (found,) = (request for request in kernel.autoloaded if request.name == name)
    return found


def loaded(kernel: Kernel) -> set[str]:
    return {module.name for module in kernel.modules}


def test_mounting_ext4_loads_it_after_what_it_needs(linux: Kernel) -> None:
    with pytest.raises(Errno, match="ENOTBLK"):
        linux.files.mount("/dev/null", "/root", "ext4")
    request = the_request(linux, "fs-ext4")
    assert request.modules[-1] == "ext4"
    assert {"jbd2", "mbcache", "crc16"} < set(request.modules)
    assert request.status == 0
    assert request.function == "get_fs_type"
    assert loaded(linux) >= {"ext4", "jbd2", "mbcache", "crc16"}
    assert b"\text4\n" in linux.read("/proc/filesystems")


def test_a_file_system_that_nobody_has_is_not_there(linux: Kernel) -> None:
    with pytest.raises(Errno, match="ENODEV"):
        linux.files.mount("none", "/root", "nosuchfs")
    request = the_request(linux, "fs-nosuchfs")
    assert request.status == 1
    assert request.modules == ()
    assert "not found" in request.said[0]


def test_a_socket_loads_its_protocol_family(linux: Kernel) -> None:
    assert linux.syscalls.call("socket", AF_VSOCK, socket.SOCK_STREAM, 0) >= 0
    assert "vsock" in the_request(linux, "net-pf-40").modules


def test_a_crypto_name_loads_its_implementation(linux: Kernel) -> None:
    assert bind_alg(linux, "hash", "md4") == 0
    assert the_request(linux, "algif-hash").modules == ("algif_hash",)
    assert the_request(linux, "crypto-md4").modules == ("md4",)
    assert b"driver       : md4-generic" in linux.read("/proc/crypto")


def test_a_template_loads_the_cipher_inside_it_from_another_task(linux: Kernel) -> None:
    """The kernel's own thread asks, while the socket's task waits for it."""
    assert bind_alg(linux, "skcipher", "cbc(des3_ede)") == 0
    requests = [request for request in linux.autoloaded if request.name == "crypto-des3_ede"]
    assert requests[0].asked_by == "cryptomgr_probe"
    assert "des_generic" in requests[0].modules


def test_opening_a_device_node_loads_its_driver(linux: Kernel) -> None:
    linux.files.mknod("/root/tun", stat.S_IFCHR | 0o600, 10, 200)
    linux.files.close(linux.files.open("/root/tun"))
    assert the_request(linux, "char-major-10-200").modules[-1] == "tun"


def test_a_request_is_made_by_a_task_called_modprobe(linux: Kernel) -> None:
    request_module(linux, "dummy")
    (call,) = linux.guest.helpers.calls
    assert call.argv == ("/sbin/modprobe", "-q", "--", "dummy")
    assert "PATH=/sbin:/usr/sbin:/bin:/usr/bin" in call.environment
    assert call.program is not None
    assert call.program.comm == "modprobe"


def test_the_requester_gets_modprobes_exit_status(linux: Kernel) -> None:
    assert request_module(linux, "dummy") == 0
    assert request_module(linux, "nosuch") == 1 << 8


def test_nobody_waits_for_a_request_without_wait(linux: Kernel) -> None:
    assert request_module(linux, "dummy", wait=False) == 0
    linux.sleep(0.1)
    assert "dummy" in loaded(linux)
    assert the_request(linux, "dummy").status == 0


@pytest.mark.parametrize("path", ["", "/no/such/program"])
def test_without_a_modprobe_there_is_enoent(linux: Kernel, path: str) -> None:
    linux.write("/proc/sys/kernel/modprobe", f"{path}\n")
    assert request_module(linux, "dummy") == -ENOENT
    assert "dummy" not in loaded(linux)


def test_another_program_may_answer_in_its_place(linux: Kernel) -> None:
    linux.guest.helpers.serve("/usr/bin/three", 3)
    linux.write("/proc/sys/kernel/modprobe", "/usr/bin/three\n")
    assert request_module(linux, "dummy") == 3 << 8


def test_a_flag_keeps_the_kernel_from_getting_modules(linux_root: Path) -> None:
    with kobox.boot(linux_root, autoload=False) as kernel:
        assert request_module(kernel, "dummy") == -ENOENT
        assert kernel.autoloaded == []


def test_more_than_fifty_at_once_wait_for_their_turn(linux: Kernel) -> None:
    """``kmod_concurrent_max``: the kernel runs so many modprobes and no more; the others come after them."""
    running: list[int] = []

    def slow(call: object) -> Iterator[tuple[int, ...]]:
        running.append(sum(other.status is None for other in linux.guest.helpers.calls))
        yield (linux.guest.symbol("msleep"), 100)
        return 0

    linux.guest.helpers.serve("/slow", slow)  # type: ignore[arg-type]  # a generator is what it is
    linux.write("/proc/sys/kernel/modprobe", "/slow\n")
    scratch = linux.modules_room.loader.env.scratch
    request = linux.guest.symbol("__request_module")
    jobs = [linux.guest.tasks.start(request, 1, scratch(b"dummy\0")) for _ in range(60)]
    for job in jobs:
        linux.guest.tasks.finish(job)
    assert [job.result for job in jobs] == [0] * 60
    assert len(running) == 60
    assert max(running) <= 50


def test_a_reset_takes_requests_and_modules_back(linux: Kernel) -> None:
    request_module(linux, "dummy")
    linux.reset()
    assert linux.autoloaded == []
    assert linux.modules == []
    assert request_module(linux, "dummy") == 0


def test_a_helper_whose_task_dies_ends_the_request(linux: Kernel) -> None:
    """The helper's task is killed by an oops; the requester is told by which signal."""

    def crash(call: object) -> Iterator[tuple[int, ...]]:
        yield (linux.guest.symbol("strlen"), 8)
        return 0

    linux.guest.helpers.serve("/crash", crash)  # type: ignore[arg-type]  # a generator is what it is
    linux.write("/proc/sys/kernel/modprobe", "/crash\n")
    assert request_module(linux, "dummy") == 9
    assert any("NULL pointer dereference" in record.text for record in linux.dmesg())


def test_a_blacklist_stops_aliases_only(boot_with: Callable[[str], Kernel]) -> None:
    kernel = boot_with("blacklist ext4\nblacklist dummy\n")
    with pytest.raises(Errno, match="ENODEV"):
        kernel.files.mount("none", "/root", "ext4")
    assert the_request(kernel, "fs-ext4").modules == ()
    assert "test.conf:1" in the_request(kernel, "fs-ext4").said[0]
    assert request_module(kernel, "dummy") == 0
    assert "dummy" in loaded(kernel)


def test_options_and_aliases_of_the_root_hold(boot_with: Callable[[str], Kernel]) -> None:
    kernel = boot_with("alias my-card dummy\noptions dummy numdummies=3\n")
    assert request_module(kernel, "my-card") == 0
    assert {entry.name for entry in kernel.ls("/sys/class/net")} >= {"dummy0", "dummy1", "dummy2"}


def test_another_root_answers_from_then_on(linux_root: Path, boot_with: Callable[[str], Kernel]) -> None:
    kernel = boot_with("alias my-card dummy\n")
    assert request_module(kernel, "my-card") == 0
    kernel.root = str(linux_root)
    assert request_module(kernel, "my-card") == 1 << 8
    assert str(linux_root) in kernel.autoloaded[-1].said[0]


def test_an_install_command_is_said_and_not_run(boot_with: Callable[[str], Kernel]) -> None:
    kernel = boot_with("install dummy /usr/bin/something --else\ninstall ifb /bin/false\n")
    assert request_module(kernel, "dummy") == 1 << 8
    assert "'/usr/bin/something --else'" in " ".join(the_request(kernel, "dummy").said)
    assert request_module(kernel, "ifb") == 1 << 8
    assert loaded(kernel) == set()


def test_modprobe_from_python_loads_with_dependencies_and_parameters(linux: Kernel) -> None:
    dummy = linux.modprobe("rtnl-link-dummy", numdummies=2)
    assert dummy.name == "dummy"
    assert {entry.name for entry in linux.ls("/sys/class/net")} >= {"dummy0", "dummy1"}
    assert linux.modprobe("ext4").state == "live"
    assert linux.autoloaded == [], "only the kernel's own requests are listed"


def test_modprobe_from_python_says_what_nothing_knows(linux: Kernel) -> None:
    with pytest.raises(Errno, match=r"ENOENT.*nosuch"):
        linux.modprobe("nosuch")


def test_a_root_without_the_kernels_modules_is_refused_at_boot(linux_root: Path, tmp_path: Path) -> None:
    (tmp_path / "lib/modules/1.2.3").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"no modules of .* found 1\.2\.3"):
        kobox.boot(linux_root, root=tmp_path)
    with pytest.raises(UsageError, match="no such directory"):
        kobox.boot(linux_root, root=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="bare kernel asks for no modules"):
        kobox.boot("bare", root=str(linux_root))  # type: ignore[call-overload]  # what the types refuse, too


def test_no_state_is_kept_while_a_module_is_being_loaded(linux: Kernel) -> None:
    def slow(call: object) -> Iterator[tuple[int, ...]]:
        yield (linux.guest.symbol("msleep"), 1000)
        return 0

    linux.guest.helpers.serve("/slow", slow)  # type: ignore[arg-type]  # a generator is what it is
    linux.write("/proc/sys/kernel/modprobe", "/slow\n")
    request_module(linux, "dummy", wait=False)
    linux.sleep(0.1)
    with pytest.raises(UsageError, match="while slow is at work"):
        linux.checkpoint()
    linux.sleep(1.1)
    assert linux.guest.helpers.programs.in_flight() == []

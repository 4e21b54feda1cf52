"""``kobox enter``: this machine's own programs, unmodified, on a session's kernel. Commands as tutorials have them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_files import example_file
from kobox.cli import main
from kobox.session.boot import BootPlan
from kobox.session.client import RemoteKernel, connect
from kobox.session.launch import launch
from needs import lacking, need_program

pytestmark = pytest.mark.image
KOBOX = [sys.executable, "-m", "kobox"]


@pytest.fixture(scope="module", autouse=True)
def _runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A runtime directory of this file's own, with nothing left running behind it."""
    need_program("kmod", "dmesg")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        lacking("kobox enter needs /dev/fuse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "")
        yield
        main(["halt", "--all"])


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def session(request: pytest.FixtureRequest) -> str:
    """A session for the tests that leave it as they found it."""
    name: str = request.param
    image = request.getfixturevalue("kobox_image" if name == "bookworm" else "trixie_root")
    launch(BootPlan(str(image)), name, lambda text: None)
    return name


@pytest.fixture
def kernel(session: str) -> Iterator[RemoteKernel]:
    with connect(session) as found:
        yield found
        for module in found.modules:
            found.rmmod(module.name, force=True)


@pytest.fixture
def hello(kernel: RemoteKernel) -> Path:
    return example_file(kernel.release, "hello")


def inside(session: str, script: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A script of sh inside; ``words`` are its ``$1``, ``$2`` …"""
    return run(session, "sh", "-c", script, "sh", *words, check=check)


def run(session: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*KOBOX, "enter", "--session", session, "--", *command],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done


def fresh(image: str | Path, name: str) -> RemoteKernel:
    """A session for what cannot be taken back."""
    launch(BootPlan(str(image)), name, lambda text: None)
    return connect(name)


# -- the first commands of every tutorial ----------------------------------------------------------------------------


def test_hello_is_loaded_its_parameter_read_and_written(kernel: RemoteKernel, session: str, hello: Path) -> None:
    said = inside(
        session,
        """
        insmod $1 my_param=7
        lsmod | grep hello
        cat /sys/module/hello/parameters/my_param
        echo 9 > /sys/module/hello/parameters/my_param
        cat /sys/module/hello/parameters/my_param
        cat /proc/modules
        rmmod hello
        lsmod | grep -c hello
        dmesg | tail -50
        """,
        str(hello),
        check=False,
    )
    assert said.stderr == ""
    lines = said.stdout.splitlines()
    assert re.fullmatch(r"hello +\d+  0", lines[0])
    assert lines[1:3] == ["7", "9"]
    assert re.fullmatch(r"hello \d+ 0 - Live 0x[0-9a-f]{16} \(\w+\)", lines[3])
    assert lines[4] == "0"
    assert "hello: my_param is 7" in said.stdout
    assert kernel.modules == []


def test_uname_and_the_module_tree_are_the_sessions(kernel: RemoteKernel, session: str) -> None:
    said = inside(session, "uname -r; uname -sm; ls /lib/modules; find /lib/modules/$(uname -r) -name 'bonding.ko*'")
    release, system, *listed = said.stdout.splitlines()
    assert release == kernel.release
    assert system == "Linux x86_64"
    assert release in listed
    assert listed[-1].startswith(f"/lib/modules/{release}/kernel/drivers/net/bonding/bonding.ko")
    assert inside(session, "cat /proc/sys/kernel/osrelease").stdout.strip() == release


def test_modprobe_bonding_with_parameters(kernel: RemoteKernel, session: str) -> None:
    said = inside(
        session,
        """
        modprobe bonding mode=1 miimon=100 max_bonds=4
        cat /sys/class/net/bonding_masters
        cat /sys/class/net/bond0/bonding/mode
        lsmod
        modprobe -r bonding
        cat /sys/module/bonding/parameters/mode
        """,
        check=False,
    )
    lines = said.stdout.splitlines()
    assert lines[0] == "bond0 bond1 bond2 bond3"
    assert lines[1] == "active-backup 1"
    assert re.search(r"^tls +\d+  1 bonding$", said.stdout, re.MULTILINE)
    assert said.stderr == "cat: /sys/module/bonding/parameters/mode: No such file or directory\n"
    assert kernel.modules == []


def test_a_parameter_that_the_module_hides_is_hidden_here_too(kernel: RemoteKernel, session: str) -> None:
    """bonding's ``mode`` has no permissions, so that no kernel shows it in /sys, whatever tutorials say."""
    said = inside(session, "modprobe bonding mode=1; cat /sys/module/bonding/parameters/mode", check=False)
    assert said.returncode == 1
    assert "No such file" in said.stderr
    listed = inside(session, "ls /sys/module/bonding/parameters").stdout.split()
    assert listed == sorted(entry.name for entry in kernel.ls("/sys/module/bonding/parameters"))
    assert "mode" not in listed


def test_configuration_of_modprobe_is_written_and_heeded(kernel: RemoteKernel, session: str) -> None:
    said = inside(
        session,
        """
        echo 'options dummy numdummies=3' > /etc/modprobe.d/dummy.conf
        modprobe dummy; ls /sys/class/net; modprobe -r dummy
        echo 'blacklist pcspkr' > /etc/modprobe.d/blacklist.conf
        modprobe -b pcspkr; lsmod | wc -l
        echo 'install dccp /bin/false' > /etc/modprobe.d/dccp.conf
        modprobe dccp; echo $?
        rm /etc/modprobe.d/*
        """,
        check=False,
    )
    assert said.stdout.split() == ["dummy0", "dummy1", "dummy2", "lo", "1", "1"]
    assert "Error running install command '/bin/false' for module dccp: retcode 1" in said.stderr
    assert kernel.modules == []


def test_what_would_be_loaded_is_shown(kernel: RemoteKernel, session: str) -> None:
    said = inside(session, "modprobe --show-depends btrfs; modprobe --show-depends e1000e").stdout.splitlines()
    tree = f"insmod /lib/modules/{kernel.release}/kernel"
    assert all(line.startswith(tree) for line in said)
    names = [Path(line.split()[1]).name.split(".")[0] for line in said]
    assert {"xor", "raid6_pq", "btrfs"} <= set(names)
    assert names[-1] == "e1000e"


def test_cdrom_is_unloaded_and_memory_looked_at(kernel: RemoteKernel, session: str) -> None:
    need_program("free")
    said = inside(
        session,
        """
        modprobe sr_mod
        lsmod | grep cdrom
        free -k
        rmmod sr_mod cdrom
        free -k
        lsmod
        """,
    ).stdout
    assert re.search(r"^cdrom +\d+  1 sr_mod$", said, re.MULTILINE)
    totals = re.findall(r"^Mem: +(\d+) +(\d+)", said, re.MULTILINE)
    assert len(totals) == 2
    assert totals[0][0] == totals[1][0]
    assert int(totals[0][0]) * 1024 < 1 << 30, "the memory of this machine, not of the kernel"
    left = said[said.rindex("Module") :]
    assert "cdrom" not in left
    assert "scsi_mod" in left


def test_parameters_of_a_driver_are_changed(kernel: RemoteKernel, session: str) -> None:
    said = inside(
        session,
        "modprobe e1000e && cat /sys/module/e1000e/parameters/copybreak && "
        "echo 1 > /sys/module/e1000e/parameters/copybreak && cat /sys/module/e1000e/parameters/copybreak",
    )
    assert said.stdout.split() == ["256", "1"]


def test_dynamic_debug_is_switched_on_by_a_redirection(kernel: RemoteKernel, session: str) -> None:
    file = example_file(kernel.release, "dyndbg")
    said = inside(
        session,
        """
        insmod $1
        echo 'module dyndbg +p' > /sys/kernel/debug/dynamic_debug/control
        grep -c 'dyndbg.* =p' /sys/kernel/debug/dynamic_debug/control
        /bin/echo nonsense > /sys/kernel/debug/dynamic_debug/control
        """,
        str(file),
        check=False,
    )
    assert int(said.stdout) > 0
    assert "Invalid argument" in said.stderr


def test_symbols_taint_and_the_list_of_modules_are_the_kernels(kernel: RemoteKernel, session: str, hello: Path) -> None:
    need_program("nm")
    said = inside(
        session,
        """
        insmod $1
        cat /proc/kallsyms | grep ' T ' | head -1
        grep '\\[hello\\]' /proc/kallsyms | wc -l
        cat /proc/sys/kernel/tainted
        nm $1 | grep " U "
        sysctl -n kernel.tainted 2>&1
        cat /proc/filesystems | grep -c ext4
        cat /proc/devices | head -1
        """,
        str(hello),
        check=False,
    )
    lines = said.stdout.splitlines()
    assert re.fullmatch(r"ffffffff[0-9a-f]{8} T \w+", lines[0])
    assert int(lines[1]) > 3
    assert int(lines[2]) == kernel.tainted
    assert any(line.strip() == "U _printk" for line in lines)
    assert lines[-2:] == ["0", "Character devices:"]


def test_a_module_of_another_kernel_needs_force(kernel: RemoteKernel, session: str, tmp_path: Path) -> None:
    """kmod 30 has ``--force`` for modprobe, later ones for insmod as well."""
    said = inside(
        session,
        """
        mkdir /lib/modules/$(uname -r)/updates
        cp $1 /lib/modules/$(uname -r)/updates/
        depmod
        modprobe hello; echo $?
        dmesg | tail -1
        modprobe --force hello; echo $?
        cat /proc/sys/kernel/tainted
        lsmod
        if insmod --help | grep -q -e --force; then rmmod hello; insmod --force $1; lsmod | grep hello; fi
        rm -r /lib/modules/$(uname -r)/updates
        depmod
        """,
        str(_foreign_module(kernel.release, tmp_path)),
        check=False,
    )
    assert "could not insert 'hello': Exec format error" in said.stderr
    refused, why, forced, tainted, *listed = said.stdout.splitlines()
    assert refused == "1"
    assert "hello: version magic '" in why
    assert forced == "0", said.stderr
    assert int(tainted) & 2, "a forced load taints"
    assert listed[1].startswith("hello ")


def _foreign_module(release: str, folder: Path) -> Path:
    """hello for a kernel of another configuration; with symbol versions the release itself is not compared."""
    changed = folder / "hello.ko"
    data = example_file(release, "hello").read_bytes()
    magic = re.search(rb"vermagic=[^\0]*", data)
    assert magic is not None
    changed.write_bytes(data.replace(magic[0], magic[0].replace(b" SMP ", b" PMS ")))
    return changed


def test_modules_disabled_is_for_good(kobox_image: str) -> None:
    with fresh(kobox_image, "closed") as kernel:
        said = inside(
            "closed",
            """
            echo 1 > /proc/sys/kernel/modules_disabled
            modprobe dummy; echo $?
            /bin/echo 0 > /proc/sys/kernel/modules_disabled
            cat /proc/sys/kernel/modules_disabled
            """,
            check=False,
        )
        assert said.stdout.split() == ["1", "1"]
        assert "could not insert 'dummy': Operation not permitted" in said.stderr
        assert "Invalid argument" in said.stderr
        kernel.halt()


def test_sudo_is_no_hindrance(kernel: RemoteKernel, session: str, hello: Path) -> None:
    said = inside(
        session, "id -u; sudo insmod $1 my_param=3; sudo -E A=b sh -c 'echo $A'; sudo rmmod hello", str(hello)
    )
    assert said.stdout.split() == ["0", "b"]
    assert kernel.modules == []


# -- other programs ---------------------------------------------------------------------------------------------------


def test_busybox_has_module_tools_too(kernel: RemoteKernel, session: str) -> None:
    need_program("busybox")
    said = inside(
        session,
        """
        busybox modprobe bonding
        busybox lsmod
        busybox rmmod bonding
        busybox modinfo -F license dummy
        busybox dmesg | grep -c bonding
        busybox uname -r
        """,
    ).stdout
    assert re.search(r"^tls +\d+  1 bonding", said, re.MULTILINE)
    assert said.splitlines()[-1] == kernel.release
    assert [module.name for module in kernel.modules] == ["tls"]


def test_the_index_is_made_anew_and_used(kernel: RemoteKernel, session: str) -> None:
    said = inside(
        session,
        """
        mkdir -p /lib/modules/$(uname -r)/updates
        cp $(modinfo -n dummy) /lib/modules/$(uname -r)/updates/
        depmod
        modinfo -n dummy
        rm -r /lib/modules/$(uname -r)/updates
        depmod
        modinfo -n dummy
        """,
    )
    before, after = said.stdout.split()
    assert before.startswith(f"/lib/modules/{kernel.release}/updates/dummy.ko")
    assert after.startswith(f"/lib/modules/{kernel.release}/kernel/")


def test_exit_status_and_signals_are_the_programs_own(session: str) -> None:
    assert run(session, "sh", "-c", "exit 7", check=False).returncode == 7
    assert run(session, "sh", "-c", "kill -TERM $$", check=False).returncode == -signal.SIGTERM
    missing = run(session, "no-such-program", check=False)
    assert missing.returncode == 127
    assert missing.stderr == "kobox enter: no-such-program: No such file or directory\n"
    assert run(session, "sh", "-c", "yes | head -1; echo ${PIPESTATUS-x}").stderr == ""


# -- devices ----------------------------------------------------------------------------------------------------------

_DEVICE = r"""
import fcntl, os, select, stat, struct, sys, time
name = sys.argv[1]
print(stat.S_ISCHR(os.stat(name).st_mode), os.stat(name).st_rdev == os.makedev(*map(int, sys.argv[2].split(":"))))
log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
while True:
    try:
        os.read(log, 8192)
    except BlockingIOError:
        break
poll = select.poll()
poll.register(log, select.POLLIN)
print(poll.poll(50))
if os.fork() == 0:
    time.sleep(0.2)
    with open("/dev/kmsg", "w") as file:
        file.write("written by a child\n")
    os._exit(0)
start = time.monotonic()
print(poll.poll(20000) == [(log, select.POLLIN)], time.monotonic() - start > 0.1)
print(os.read(log, 8192).split(b";")[1])
"""


def test_devices_are_read_written_and_polled(kernel: RemoteKernel, session: str) -> None:
    number = kernel.read("/sys/class/mem/kmsg/dev").decode().strip()
    said = run(session, sys.executable, "-c", _DEVICE, "/dev/kmsg", number).stdout.splitlines()
    assert said == ["True True", "[]", "True True", "b'written by a child\\n'"]


_NOTE = r"""
import fcntl, os, struct
note = os.open("/dev/kobox_note", os.O_RDWR)
print(os.write(note, b"milk and bread"))
room = bytearray(4)
print(fcntl.ioctl(note, 0x80046B01, room), struct.unpack("=I", room)[0])
room = bytearray(struct.pack("=I", 100))
print(fcntl.ioctl(note, 0xC0046B03, room), struct.unpack("=I", room)[0] > 100)
print(fcntl.ioctl(note, 0x6B02))
try:
    fcntl.ioctl(note, 0x6B7F)
except OSError as error:
    print(error.strerror)
"""


def test_a_modules_own_device_is_written_read_and_answers_ioctl(kernel: RemoteKernel, session: str) -> None:
    """examples/misc.c: a note with its length, a limit that is exchanged for the one before, and a command to clear."""
    said = inside(
        session,
        """
        insmod $1
        ls -l /dev/kobox_note
        echo -n milk > /dev/kobox_note
        cat /dev/kobox_note; echo
        $2 -c "$3"
        dmesg | tail -1
        """,
        str(example_file(kernel.release, "misc")),
        sys.executable,
        _NOTE,
    )
    lines = said.stdout.splitlines()
    assert re.match(r"c[rw-]+ 1 root root +10, +\d+ .* /dev/kobox_note", lines[0])
    assert lines[1:-1] == ["milk", "14", "0 14", "0 True", "0", "Inappropriate ioctl for device"]
    assert lines[-1].endswith("misc: closed")


def test_a_device_in_use_keeps_its_module(kernel: RemoteKernel, session: str) -> None:
    file = example_file(kernel.release, "misc")
    said = inside(
        session, "insmod $1; exec 3< /dev/kobox_note; rmmod misc; lsmod; exec 3<&-; rmmod misc", str(file), check=False
    )
    assert "ERROR: Module misc is in use" in said.stderr
    assert re.search(r"^misc +\d+  1", said.stdout, re.MULTILINE)
    assert kernel.modules == []


# -- programs that do not behave --------------------------------------------------------------------------------------


def test_who_is_killed_stopped_or_detached_harms_nobody(kernel: RemoteKernel, session: str, hello: Path) -> None:
    said = inside(
        session,
        """
        cat /dev/kmsg > /dev/null & sleep 0.3; kill -9 $!
        cat /dev/kmsg > /dev/null & sleep 0.3; kill -STOP $!; lsmod > /dev/null; kill -KILL $!
        (setsid sh -c 'sleep 1; insmod $0' $1 > /dev/null 2>&1 &)
        echo here
        """,
        str(hello),
    )
    assert said.stdout == "here\n"
    assert kernel.modules == []
    deadline = time.monotonic() + 20
    while not kernel.modules and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [module.name for module in kernel.modules] == ["hello"], "what was detached goes on"


def test_two_at_once_see_one_kernel(kernel: RemoteKernel, session: str, hello: Path) -> None:
    first = subprocess.Popen(
        [*KOBOX, "enter", "--session", session, "--", "sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdin is not None
    assert first.stdout is not None
    first.stdin.write("lsmod | wc -l\n")
    first.stdin.flush()
    assert first.stdout.readline() == "1\n"
    inside(session, "insmod $1", str(hello))
    first.stdin.write("lsmod | wc -l; cat /sys/module/hello/refcnt; rmmod hello\n")
    first.stdin.close()
    assert first.stdout.read() == "2\n0\n"
    first.stdout.close()
    assert first.wait(20) == 0
    assert kernel.modules == []


def test_the_keeper_is_killed_and_the_session_lives(kernel: RemoteKernel, session: str) -> None:
    with subprocess.Popen([*KOBOX, "enter", "--session", session, "--", "sleep", "600"]) as sleeper:
        deadline = time.monotonic() + 20
        while not (keepers := _keepers(sleeper.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for keeper in keepers:
            os.kill(keeper, signal.SIGKILL)
        assert inside(session, "uname -r").stdout.strip() == kernel.release
        sleeper.kill()


def _keepers(program: int) -> list[int]:
    """Processes with the program's command line that are not it, once it has begun."""
    with open(f"/proc/{program}/cmdline", "rb") as file:
        if not file.read().startswith(b"sleep\0"):
            return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if b"enter\0" in words and words.endswith(b"sleep\x00600\0"):
                found.append(int(name))
    return found


def test_a_module_that_oopses_kills_its_insmod(kobox_image: str) -> None:
    with fresh(kobox_image, "oops") as kernel:
        file = example_file(kernel.release, "walk_oops")
        said = inside("oops", "insmod $1; echo $?; dmesg | grep -c 'Oops:'; lsmod | wc -l", str(file), check=False)
        assert said.stdout.split()[1:] == ["1", "2"], said
        assert int(said.stdout.split()[0]) > 128
        kernel.halt()


# -- without root ----------------------------------------------------------------------------------------------------


_NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


def test_it_needs_no_root(tmp_path: Path, kobox_image: str) -> None:
    """As user 65534, who has nothing but its own folders."""
    need_program("setpriv")
    if os.geteuid() != 0:
        return  # all of the above was the test
    if os.stat("/dev/fuse").st_mode & 0o6 != 0o6:
        lacking("/dev/fuse is for root only on this machine; udev makes it 0666")
    root = _readable_copy(kobox_image)
    home = root / "home"
    home.mkdir()
    module = root / "hello.ko"
    shutil.copy(Path(__file__).resolve().parents[2] / "examples/prebuilt/hello.ko", module)
    os.chown(home, 65534, 65534)
    home.chmod(0o700)
    environment = {name: str(home) for name in ("HOME", "XDG_RUNTIME_DIR", "KOBOX_CACHE_DIR", "KOBOX_DATA_DIR")}
    environment |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(root / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
    user = [*_NOBODY, _python_for_all(), "-m", "kobox"]
    try:
        said = subprocess.run(
            [*user, "enter", "--image", str(root / "image"), "--", "sh", "-c",
             "id -u; insmod $0 my_param=4; cat /sys/module/hello/parameters/my_param; rmmod hello; lsmod", str(module)],
            env=environment, capture_output=True, text=True, timeout=300, check=False, cwd="/",
        )  # fmt: skip
    finally:
        shutil.rmtree(root)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[:2] == ["0", "4"]


def _python_for_all() -> str:
    """An interpreter that any user may execute."""
    for candidate in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run(
            [*_NOBODY, "sh", "-c", 'exec "$0" -c "import sys; print(sys.version_info[:2])"', candidate],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.stdout.strip() == str(sys.version_info[:2]):
            return candidate
    lacking(f"no Python {sys.version_info[0]}.{sys.version_info[1]} on this machine that any user may execute")
    raise AssertionError


def _readable_copy(image: str) -> Path:
    """What another user needs of kobox and of the kernel, where he may read it."""
    root = Path(tempfile.mkdtemp(prefix="kobox-enter-"))
    root.chmod(0o755)
    python = root / "python"
    python.mkdir()
    wanted = ("kobox", "unicorn", "capstone", "zstandard", "lz4", "aiohttp", "cryptography")
    for folder in sys.path:
        place = Path(folder)
        if place.name in ("site-packages", "src") and place.is_dir():
            for entry in place.iterdir():
                if not (python / entry.name).exists() and (place.name == "site-packages" or entry.name in wanted):
                    (shutil.copytree if entry.is_dir() else shutil.copy)(entry, python / entry.name)
    shutil.copytree(Path(image) / "boot", root / "image/boot")
    (release,) = (Path(image) / "lib/modules").iterdir()
    for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
        if (release / name).exists():
            (root / "image/lib/modules" / release.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(release / name, root / "image/lib/modules" / release.name)
    return root

"""``kobox shell`` with scripts on the booted image: files, modules, log, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kobox.cli import main
from paths import EXAMPLES

pytestmark = pytest.mark.image


class Script:
    """Runs scripts of one image in this process: (exit code, output, messages)."""

    def __init__(self, image: str, capture: pytest.CaptureFixture[bytes]) -> None:
        self._image, self._capture = image, capture

    def __call__(self, text: str, *options: str) -> tuple[int, str, str]:
        code = main(["shell", "--image", self._image, *options, "-c", text])
        out, err = self._capture.readouterr()
        return code, out.decode(), err.decode()


@pytest.fixture
def shell(kobox_image: str, capfdbinary: pytest.CaptureFixture[bytes]) -> Script:
    return Script(kobox_image, capfdbinary)


def test_a_module_is_loaded_looked_at_set_and_unloaded(shell: Script) -> None:
    hello = EXAMPLES / "hello.ko"
    code, out, err = shell(f"""
        insmod {hello} my_param=7 && cd /sys/module/hello/parameters
        cat my_param; echo 9 > my_param; cat my_param
        lsmod | grep -c hello
        rmmod hello && dmesg | tail -1 | grep -o 'goodbye.*'
    """)
    assert (code, err) == (0, "")
    assert out == "7\n9\n1\ngoodbye, my_param is 9\n"


def test_modprobe_modinfo_and_depmod_know_the_images_tree(shell: Script, debian_root: Path) -> None:
    code, out, err = shell(
        "modprobe bonding miimon=100; lsmod; cat /sys/class/net/bonding_masters; modinfo -F name bonding"
    )
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["Module", "bonding", "tls"]
    assert out.splitlines()[3:] == ["bond0", "bonding"]
    assert shell("modprobe -r bonding; modprobe -D bonding | wc -l; depmod -n | head -1 | wc -l")[:2] == (0, "2\n1\n")


def test_messages_name_the_line_and_the_last_status_is_the_shells(shell: Script) -> None:
    code, out, err = shell("echo on\nmodprobe nosuch\nrmmod hello\ncat /nosuch; false")
    assert (code, out) == (1, "on\n")
    lines = err.splitlines()
    assert lines[0].startswith("kobox shell: line 2: modprobe: FATAL: Module nosuch not found")
    assert lines[1] == "kobox shell: line 3: rmmod: ERROR: Module hello is not currently loaded"
    assert lines[2] == "kobox shell: line 4: cat: /nosuch: No such file or directory"


def test_a_refused_module_says_why(shell: Script) -> None:
    code, _, err = shell(f"insmod {EXAMPLES}/user.ko")
    assert code == 1
    lines = err.splitlines()
    assert (
        lines[0]
        == f"kobox shell: line 1: insmod: ERROR: could not insert module {EXAMPLES}/user.ko: Unknown symbol in module"
    )
    assert lines[1].startswith("kobox shell: line 1: insmod: ERROR: the loader: unknown symbols: exporter_")


def test_a_file_without_an_end_is_read_as_far_as_anybody_wants(shell: Script) -> None:
    count = "ls /proc/self/fd | wc -l"
    endless = "cat /dev/kmsg | head -1 | grep -c 'Linux version'; head -c 5 /dev/zero | wc -c"
    code, out, err = shell(f"{count}; {endless}; {count}")
    assert (code, err) == (0, "")
    before, first, second, after = out.split()
    assert (first, second) == ("1", "5")
    assert before == after, "nothing stays open"


def test_with_e_the_first_failure_ends_the_script(shell: Script) -> None:
    assert shell("echo a; false; echo b", "-e")[:2] == (1, "a\n")
    assert shell("echo a; exit 3; echo b")[:2] == (3, "a\n")


def test_a_script_comes_from_a_file_or_from_standard_input(kobox_image: str, tmp_path: Path) -> None:
    script = tmp_path / "test.sh"
    script.write_text("uname -r\ncat /nosuch\n")
    command = [sys.executable, "-m", "kobox", "shell", "--image", kobox_image]
    from_file = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
    with open(script) as given:
        from_input = subprocess.run(command, stdin=given, capture_output=True, text=True, check=False)
    assert from_file.returncode == from_input.returncode == 1
    assert from_file.stdout == from_input.stdout
    assert from_file.stdout.startswith("6.")
    assert from_file.stderr == f"{script}: line 2: cat: /nosuch: No such file or directory\n"
    assert from_input.stderr == "kobox shell: line 2: cat: /nosuch: No such file or directory\n"


def test_the_console_is_shown_when_asked_for_and_heeds_its_level(shell: Script) -> None:
    hello = EXAMPLES / "hello.ko"
    _, out, err = shell(f"insmod {hello}; rmmod hello", "--console")
    assert out == ""
    assert "hello: goodbye" in err
    _, _, err = shell(f"dmesg -n err; insmod {hello}; rmmod hello", "--console")
    assert err == ""


def test_dmesg_has_the_options_of_util_linux(shell: Script) -> None:
    code, out, err = shell(
        f"dmesg -C; insmod {EXAMPLES}/hello.ko; dmesg -l warn -x; dmesg -J | grep -c msg; dmesg --nosuch"
    )
    assert code == 2
    assert out.startswith("kern  :warn  : [")
    assert out.splitlines()[-1] == "4"
    assert "dmesg: unrecognized arguments: --nosuch" in err
    assert shell("dmesg | head -1 | grep -c 'Linux version'")[:2] == (0, "1\n")


def test_what_a_module_writes_to_the_kernels_files_and_the_hosts(shell: Script, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    code, out, _ = shell(f"dmesg > host:{saved}; echo kept > /root/note; cat /root/note; ls -l /root/note")
    assert code == 0
    assert out.startswith("kept\n-rw-r--r-- root  root  5 /root/note")
    assert saved.read_text().startswith("[    0.000000] Linux version")


def test_another_release_has_the_same_shell(trixie_root: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, out, err = Script(str(trixie_root), capfdbinary)("""
        modprobe bonding miimon=100 && cat /sys/class/net/bond0/bonding/miimon && lsmod | wc -l
        dmesg -x | head -1 | grep -c "Linux version"; free -M | grep -c bonding; uname -r | head -c 5
    """)
    assert (code, err) == (0, "")
    assert out == "100\n3\n1\n1\n6.12."


def test_a_kernel_that_died_is_said_and_ends_no_shell(shell: Script) -> None:
    code, out, err = shell("echo c > /proc/sysrq-trigger; echo on; cat /proc/version")
    assert out == "on\n"
    assert code == 1
    assert "the kernel has stopped" in err.splitlines()[-1]


def test_a_kernel_that_died_lives_again_after_reboot(shell: Script) -> None:
    hello = EXAMPLES / "hello.ko"
    code, out, _ = shell(
        f"insmod {hello}; echo c > /proc/sysrq-trigger; reboot; lsmod | wc -l; insmod {hello} && lsmod | wc -l"
    )
    assert (code, out) == (0, "1\n2\n")


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--session", "k1", "--image", "bare", "-c", "true"], 2, "--image is for a kernel of the shell's own"),
        (["--session", "no-such-session", "-c", "true"], 1, "no session 'no-such-session'"),
        (["-c", "true", "FILE"], 2, "-c and FILE exclude each other"),
        (["/no/such/script"], 1, "/no/such/script: No such file"),
        (["--root", "/no/such/root", "-c", "true"], 2, "/no/such/root: no such directory"),
        (["--image", "9.9.9", "-c", "true"], 2, "9.9.9"),
    ],
)
def test_options_that_cannot_be_are_one_clear_line(
    options: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shell", *options]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_the_bare_kernel_has_a_shell_too(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    script = (
        f"insmod {EXAMPLES}/hello.ko my_param=5; cat /sys/module/hello/parameters/my_param; lsmod | wc -l; modprobe x"
    )
    assert main(["shell", "--image", "bare", "-c", script]) == 1
    out, err = capfdbinary.readouterr()
    assert out == b"5\n2\n"
    assert b"this kernel has no modules of its own; hint: kobox shell --root DIR" in err

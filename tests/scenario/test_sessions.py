"""Kernels that stay, as users have them: commands, several clients, killed clients and servers, wrong requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_files import example_file
from kobox.cli import main
from kobox.errors import Errno, KoboxError, UsageError
from kobox.kernel.tasks import TaskDied
from kobox.session import places
from kobox.session.boot import BootPlan
from kobox.session.client import RemoteKernel, connect
from kobox.session.launch import launch
from paths import EXAMPLES
from schemas import problems_of_command

pytestmark = pytest.mark.image
KOBOX = [sys.executable, "-m", "kobox"]


@pytest.fixture(scope="module", autouse=True)
def _runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A runtime directory of this file's own, with nothing left running behind it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield
        main(["halt", "--all"])


@pytest.fixture
def no_sessions() -> Iterator[None]:
    main(["halt", "--all"])
    yield
    main(["halt", "--all"])


@pytest.fixture(scope="module")
def image(kobox_image: str) -> str:
    return kobox_image


@pytest.fixture(scope="module")
def machine(debian_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of a machine with this kernel and a few of its modules, indexed, and with configuration."""
    root = tmp_path_factory.mktemp("machine")
    (root / "boot").symlink_to(debian_root / "boot")
    (whole,) = (debian_root / "lib/modules").iterdir()
    for place in ("drivers/net/bonding/bonding.ko", "net/tls/tls.ko", "drivers/net/dummy.ko"):
        file = root / "lib/modules" / whole.name / "kernel" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(whole / "kernel" / place)
    for name, text in {
        "modules-load.d/a.conf": "# ours\nbonding\nno_such_module\n",
        "modules-load.d/b.conf": "dummy\n",
        "modprobe.d/a.conf": "options bonding miimon=250\nblacklist dummy\n",
    }.items():
        file = root / "etc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert main(["depmod", "--root", str(root), whole.name]) == 0
    return root


@pytest.fixture
def kernel(image: str) -> Iterator[RemoteKernel]:
    """One session for the tests that leave it as they found it."""
    if places.place_of("shared") is None:
        launch(BootPlan(image), "shared", lambda text: None)
    with connect("shared") as shared:
        yield shared
        for module in shared.modules:
            shared.rmmod(module.name, force=True)


def kobox(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KOBOX, *words], capture_output=True, text=True, timeout=60, env=os.environ | environment, check=False
    )


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The only line that a command says when it fails."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


# -- commands --------------------------------------------------------------------------------------------------------


def test_a_day_with_a_session(no_sessions: None, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert main(list(words)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    assert said("boot", "--image", image).startswith("k1: kernel 6.1.0")
    hello = str(example_file(connect().release, "hello"))
    said("insmod", hello, "my_param=7")
    assert said("lsmod").splitlines()[1].split()[0] == "hello"
    assert said("cat", "/sys/module/hello/parameters/my_param") == "7\n"
    said("write", "/sys/module/hello/parameters/my_param", "9")
    assert "parameters" in said("ls", "/sys/module/hello").split()
    assert "-r--r--r--" in said("ls", "-l", "/sys/module/hello")
    said("rmmod", "hello")
    assert main(["cat", "/proc/version", "/nope"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("Linux version")
    assert err == "kobox cat: /nope: No such file or directory\n"
    assert main(["write", "/proc/version", "x"]) == 1
    assert main(["ls", "/nope"]) == 1
    assert main(["insmod", str(example_file(connect().release, "user"))]) == 1
    err = capsys.readouterr().err
    assert "kobox write: /proc/version: Input/output error\n" in err
    assert "kobox ls: /nope: No such file or directory\n" in err
    assert "insmod: ERROR: the loader: unknown symbols: " in err
    events = [json.loads(line) for line in said("events", "--since", "0", "--no-follow", "--json").splitlines()]
    for event in events:
        assert problems_of_command(event, "events") == [], event
    assert "hello: goodbye, my_param is 9" in [event.get("text") for event in events]
    assert [event["path"] for event in events if event["type"] == "uevent"] == ["/module/hello"] * 2
    (row,) = json.loads(said("ps", "--json"))
    assert (row["name"], row["state"], row["tainted"]) == ("k1", "ready", 12288)
    assert said("reboot").startswith("k1: kernel")
    assert said("lsmod").splitlines() == ["Module                  Size  Used by"]
    said("halt")
    assert json.loads(said("ps", "--json")) == []


def test_every_answer_is_as_its_published_schema_says(
    no_sessions: None, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["boot", "--image", image, "--json"],
        ["ps", "--json"],
        ["save", "--json", str(tmp_path / "state")],
        ["ls", "--json", "/proc/sys"],
        ["ls", "-l", "--json", "/proc/sys"],
        ["lsmod", "--json"],
        ["reboot", "--json"],
        ["restore", "--json", "--name", "again", str(tmp_path / "state")],
        ["restore", "--list", "--json"],
        ["halt", "--json", "--session", "again"],
    ):
        assert main(words) == 0, capsys.readouterr().err
        assert problems_of_command(json.loads(capsys.readouterr().out), words[0]) == [], words


def test_boot_loads_what_the_root_lists_by_the_roots_own_rules(
    no_sessions: None, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["boot", "--root", str(machine)]) == 0
    out, err = capsys.readouterr()
    assert "loaded: bonding" in out
    refused, missing = sorted(err.splitlines())
    assert "not loaded: dummy" in refused
    assert "modprobe.d/a.conf" in refused
    assert "not loaded: no_such_module" in missing
    assert "a.conf:3" in missing
    with connect() as kernel:
        assert kernel.read("/sys/class/net/bond0/bonding/miimon") == b"250\n"
        assert main(["modprobe", "-r", "bonding"]) == 0
        assert kernel.modules == []
        assert main(["modprobe", "dummy"]) == 0, "a blacklist stops no one who asks for it by name"
        assert main(["modinfo", "-F", "license", "dummy"]) == 0
        assert capsys.readouterr().out == "GPL\n"
        kernel.reboot()
        assert kernel.read("/sys/class/net/bond0/bonding/miimon") == b"250\n"


def test_a_session_can_load_the_modules_of_its_devices(no_sessions: None, image: str) -> None:
    assert main(["boot", "--coldplug", "--image", image]) == 0
    with connect() as kernel:
        assert {"pcspkr", "evdev"} <= {module.name for module in kernel.modules}


def test_the_bare_kernel_stays_too(no_sessions: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "--image", "bare"]) == 0
    assert main(["insmod", str(EXAMPLES / "hello.ko")]) == 0
    capsys.readouterr()
    assert main(["events", "--since", "0", "--no-follow"]) == 0
    said = capsys.readouterr().out
    assert "hello: hello, world" in said
    assert "add /module/hello" in said


def test_the_same_seed_and_the_same_calls_give_the_same_log(no_sessions: None, image: str) -> None:
    logs = []
    for name in ("one", "two"):
        launch(BootPlan(image, seed=7), name, lambda text: None)
        with connect(name) as kernel:
            kernel.insmod(example_file(kernel.release, "hello"))
            kernel.sleep(2)
            logs.append((kernel.read("/proc/sys/kernel/random/uuid"), kernel.dmesg(boot=True)))
    assert logs[0] == logs[1]


# -- a kernel's face at the other end of the socket ------------------------------------------------------------------


def test_errors_are_those_of_a_kernel_in_the_same_process(kernel: RemoteKernel) -> None:
    with pytest.raises(Errno, match="ENOENT"):
        kernel.read("/no/such/file")
    with pytest.raises(Errno, match="ENOEXEC"):
        kernel.init_module(b"\x7fELF" + bytes(100))
    assert kernel.explain_last_load()
    with pytest.raises(UsageError, match="no symbol 'nothing'"):
        kernel.call("nothing")
    with pytest.raises(Errno, match="ENOENT"):
        kernel.rmmod("nothing")


def test_a_crash_ends_the_call_and_not_the_session(no_sessions: None, image: str) -> None:
    launch(BootPlan(image), "crash", lambda text: None)
    with connect("crash") as kernel:
        with pytest.raises(TaskDied):
            kernel.insmod(example_file(kernel.release, "hostile/bug"))
        assert kernel.read("/proc/uptime")
        assert any("kernel BUG at" in record.text for record in kernel.dmesg())
        assert kernel.tainted & 1 << 7


def test_a_handle_on_a_module_works_across_the_socket(kernel: RemoteKernel) -> None:
    hello = kernel.insmod(example_file(kernel.release, "hello"), my_param=3)
    assert hello.parameters["my_param"] == "3"
    hello.parameters["my_param"] = 4
    assert dict(hello.parameters)["my_param"] == "4"
    assert hello.state == "live"
    assert kernel.call("hex_to_bin", ord("c")) == 12


def test_an_endless_file_has_an_end_in_an_error(kernel: RemoteKernel) -> None:
    with pytest.raises(KoboxError, match="/dev/zero: has no end within 64 MiB"):
        kernel.read("/dev/zero")


def test_a_wrong_request_is_answered_and_nothing_more(kernel: RemoteKernel) -> None:
    for method, target, body, says in (
        ("GET", "/nowhere", b"", "this server speaks version 1"),
        ("GET", "/files", b"", "lacks 'path'"),
        ("POST", "/call", b"[", "not JSON"),
        ("POST", "/call", b"{}", "'function' in the request's body"),
        ("POST", "/call", b'{"function": "x", "arguments": ["y"]}', "at most six numbers"),
        ("POST", "/sleep", b'{"seconds": "long"}', "expected int or float"),
        ("GET", "/events?kinds=gossip", b"", "no events of kind gossip"),
        ("GET", "/events?since=x", b"", "not a number"),
    ):
        with pytest.raises(UsageError, match=says):
            kernel.ask(method, target, body)
    with pytest.raises(Errno, match=r"EINVAL|ENOSPC|ERANGE"):
        kernel.insmod(example_file(kernel.release, "hello"), my_param="9" * 100_000)
    assert kernel.read("/proc/uptime")


# -- interrupting ----------------------------------------------------------------------------------------------------


def test_ctrl_c_in_a_client_ends_its_call_and_the_session_goes_on(kernel: RemoteKernel) -> None:
    client = subprocess.Popen(
        [*KOBOX, "cat", "--session", "shared", "/dev/zero"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: kernel.info()["running"] is not None)
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=30)
    assert (client.returncode, err) == (130, "kobox cat: interrupted\n")
    assert kernel.read("/proc/uptime")


def test_a_killed_client_takes_its_call_with_it(kernel: RemoteKernel) -> None:
    client = subprocess.Popen([*KOBOX, "cat", "--session", "shared", "/dev/zero"], stdout=subprocess.DEVNULL)
    wait_until(lambda: kernel.info()["running"] is not None)
    client.kill()
    client.wait()
    wait_until(lambda: kernel.info()["running"] is None, within=2)
    assert kernel.read("/proc/uptime")


def test_a_session_is_halted_in_the_middle_of_a_call(no_sessions: None, image: str) -> None:
    launch(BootPlan(image), "busy", lambda text: None)
    client = subprocess.Popen([*KOBOX, "cat", "/dev/zero"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with connect() as kernel:
        wait_until(lambda: kernel.info()["running"] is not None)
    assert main(["halt"]) == 0
    _, said = client.communicate(timeout=30)
    assert client.returncode == 1
    assert len(said.splitlines()) == 1
    assert places.places() == []


def test_code_that_spins_is_stopped_by_another_client(no_sessions: None, image: str) -> None:
    launch(BootPlan(image), "spinning", lambda text: None)
    with connect("spinning") as kernel:
        file = example_file(kernel.release, "hostile/spin")
        client = subprocess.Popen([*KOBOX, "insmod", str(file)], stderr=subprocess.PIPE, text=True)
        wait_until(lambda: kernel.info()["running"] is not None)
        assert main(["interrupt"]) == 0
        _, err = client.communicate(timeout=30)
        assert "was killed" in err
        assert main(["interrupt"]) == 1, "nothing runs any more"
        assert [module.state for module in kernel.modules] == ["loading"]


# -- what can be wrong with a session --------------------------------------------------------------------------------


def test_without_a_session_one_line_says_what_to_do(no_sessions: None) -> None:
    assert one_line(kobox("cat", "/proc/uptime"), 1).startswith("kobox cat: no session runs; hint: kobox boot")
    assert "no session 'x'; running: none" in one_line(kobox("lsmod", "--session", "x"), 1)
    assert "no kobox kernel is running" in one_line(kobox("lsmod"), 3)


def test_two_sessions_need_a_name(no_sessions: None) -> None:
    for name in ("one", "two"):
        launch(BootPlan("bare"), name, lambda text: None)
    assert "2 sessions run: one, two; hint: --session NAME" in one_line(kobox("lsmod"), 2)
    assert kobox("lsmod", KOBOX_SESSION="two").returncode == 0
    assert "names another place than" in one_line(kobox("lsmod", "--session", "one", "--live"), 2)
    assert "session 'one' runs already" in one_line(kobox("boot", "--image", "bare", "--name", "one"), 2)


def test_a_killed_server_is_told_from_a_running_one_and_cleared_away(no_sessions: None) -> None:
    about = launch(BootPlan("bare"), "gone", lambda text: None)
    os.kill(about["pid"], signal.SIGKILL)
    wait_until(lambda: not places.places()[0].alive)
    assert f"session 'gone' is gone: its server (process {about['pid']})" in one_line(
        kobox("lsmod", "--session", "gone"), 1
    )
    (row,) = json.loads(kobox("ps", "--json").stdout)
    assert row["state"] == "gone"
    assert launch(BootPlan("bare"), "gone", lambda text: None)["pid"] != about["pid"]
    assert kobox("halt", "--session", "gone").returncode == 0
    assert places.places() == []


def test_what_a_killed_server_left_can_be_halted(no_sessions: None) -> None:
    os.kill(launch(BootPlan("bare"), "left", lambda text: None)["pid"], signal.SIGKILL)
    wait_until(lambda: not places.places()[0].alive)
    assert kobox("halt", "--session", "left").returncode == 0
    assert places.places() == []


def test_a_server_that_dies_under_a_call_is_one_line_too(no_sessions: None, image: str) -> None:
    about = launch(BootPlan(image), "dying", lambda text: None)
    client = subprocess.Popen([*KOBOX, "cat", "/dev/zero"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with connect() as kernel:
        wait_until(lambda: kernel.info()["running"] is not None)
    os.kill(about["pid"], signal.SIGKILL)
    out, err = client.communicate(timeout=30)
    assert out == ""
    assert "session 'dying' is gone" in err
    assert len(err.splitlines()) == 1


def test_a_server_of_another_version_is_not_spoken_to(no_sessions: None) -> None:
    launch(BootPlan("bare"), "later", lambda text: None)
    about = places.folder_of("later") / places.ABOUT
    facts = json.loads(about.read_text())
    about.write_text(json.dumps(facts | {"api": 2, "kobox": "9.0"}))
    assert "session 'later' speaks version 2 (kobox 9.0), this is kobox" in one_line(kobox("lsmod"), 1)
    (row,) = json.loads(kobox("ps", "--json").stdout)
    assert row["state"] == "other"
    about.write_text(json.dumps(facts))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_users_session_is_refused_in_one_line(no_sessions: None, capsys: pytest.CaptureFixture[str]) -> None:
    launch(BootPlan("bare"), "mine", lambda text: None)
    runtime = Path(os.environ["XDG_RUNTIME_DIR"])
    for folder in (runtime, *runtime.parents[:-2]):
        folder.chmod(0o755)
    capsys.readouterr()
    os.seteuid(65534)
    try:
        code = main(["lsmod"])
    finally:
        os.seteuid(0)
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert "permission denied: the session belongs to another user" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--image", "9.9.9-none"], "9.9.9-none"),
        (["--root", "/nonexistent"], "/nonexistent: no such directory"),
        (["--name", "../x"], "cannot be the name of a session"),
        (["--image", "bare", "--append", "x"], "the bare kernel has no command line"),
        (["--cpu", "z80"], "z80"),
    ],
)
def test_what_cannot_be_booted_is_one_line_and_leaves_nothing(no_sessions: None, words: list[str], says: str) -> None:
    done = kobox("boot", *words)
    assert done.returncode in (1, 2), done.stderr
    assert says in one_line(done, done.returncode)
    assert [place for place in places.places() if place.alive] == []


def test_ctrl_c_while_it_boots_leaves_nothing(no_sessions: None, image: str) -> None:
    new = f"quiet unheard_of={time.time_ns()}"  # a boot that is known is over too soon
    client = subprocess.Popen([*KOBOX, "boot", "--image", image, "--append", new])
    wait_until(lambda: bool(places.places()))
    time.sleep(0.3)
    client.send_signal(signal.SIGINT)
    assert client.wait(30) == 130
    assert [place for place in places.places() if place.alive] == []


def wait_until(holds: object, within: float = 20.0) -> None:
    limit = time.monotonic() + within
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)

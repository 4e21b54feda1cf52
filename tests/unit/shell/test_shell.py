"""The shell's own manners: messages that name lines, what it refuses, laziness, the host's files, completion."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kobox.shell import Command, Completer, Incomplete, Io, Output, parse
from kobox.shell.syntax import SyntaxFault
from kobox.shell.system_tools import free_text, human, parse_meminfo
from needs import lacking, need_program
from unit.shell.worlds import Ran

MEMINFO = """\
MemTotal:         468544 kB
MemFree:          441788 kB
MemAvailable:     441324 kB
Buffers:             100 kB
Cached:              200 kB
SwapCached:            0 kB
Shmem:                12 kB
SReclaimable:       3000 kB
SwapTotal:         10000 kB
SwapFree:           9000 kB
HugePages_Total:       0
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "proc/sys").mkdir()
    (tmp_path / "sys/module/hello").mkdir(parents=True)
    (tmp_path / "sys/module/hello/refcnt").write_text("0\n")
    (tmp_path / "odd name").write_text("odd\n")
    (tmp_path / "link").symlink_to("sys")
    return tmp_path


@pytest.fixture
def sh(world: Path) -> Ran:
    return Ran(world, "test.sh")


# --- messages --------------------------------------------------------------------------------------------------------


def test_a_message_names_the_line_of_the_script(sh: Ran) -> None:
    status, _, err = sh("true\n\ncat /nosuch\necho 'a\nb'; cat /none |\n cat")
    assert status == 0
    assert err.splitlines() == [
        "test.sh: line 3: cat: /nosuch: No such file or directory",
        "test.sh: line 5: cat: /none: No such file or directory",
    ]


def test_at_a_prompt_a_message_names_no_line(world: Path) -> None:
    assert Ran(world, "")("cat /nosuch")[2] == "cat: /nosuch: No such file or directory\n"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("true\n| cat", "test.sh: line 2: syntax error: unexpected '|'"),
        ("echo a >", "test.sh: line 1: syntax error: unexpected the end behind >"),
        ("echo a ;; echo b", "';;': case are not part"),
        ("(echo a)", "'(': subshells and functions are not part of this shell"),
        ("echo a & echo b", "'&': background jobs are not part of this shell"),
        ("if true; then echo a; fi", "'if' is not part of this shell; hint: && and || choose"),
        ("for x in a; do echo; done", "'for' is not part of this shell"),
        ("\n\necho $(ls)", "line 3: syntax error: command substitution is not part of this shell"),
        ("echo `ls`", "command substitution is not part of this shell"),
        ("echo ${x:-1}", "of ${…} this shell has ${NAME} only"),
        ("cat << END", "'<<': here-documents are not part of this shell"),
        ("echo a 2< b", "descriptor 2 cannot be redirected with <"),
        ("echo a >&3", "behind >& stands 1 or 2"),
        ("echo a &&& b", "background jobs"),
        ("true\necho 'a\nb", "test.sh: line 2: syntax error: a single quote that is not closed"),
        ('\n\necho "a', "test.sh: line 3: syntax error: a double quote that is not closed"),
        ("true\necho a |\n", "test.sh: line 3: syntax error: nothing behind |"),
    ],
)
def test_what_is_not_of_the_language_is_one_clear_line(script: str, says: str, sh: Ran) -> None:
    status, out, err = sh(script)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", ["echo 'a", 'echo "a', "echo a |", "true &&", "true ||\n", "echo \\", 'echo "$x'])
def test_a_text_that_is_not_complete_asks_for_more(text: str) -> None:
    with pytest.raises(Incomplete):
        parse(text)
    with pytest.raises(Incomplete):
        Ran(Path("/"), "")(text)


def test_an_unknown_command_has_its_own_status_and_a_guess(sh: Ran) -> None:
    status, _, err = sh("ehco hi")
    assert status == 127
    assert err == "test.sh: line 1: ehco: command not found; hint: did you mean 'echo'?\n"


@pytest.mark.parametrize(
    ("script", "status", "says"),
    [
        ("cat", 1, "cat: nothing to read; hint: name a file, or put a pipe in front"),
        ("cat -z x", 2, "cat: no option -z"),
        ("head -n", 2, "head: -n wants a value"),
        ("grep", 2, "grep: no pattern"),
        ("sleep soon", 2, "sleep: invalid time interval 'soon'"),
        ("sleep -1", 2, "sleep: invalid time interval '-1'"),
        ("exit now", 2, "exit: now: not a number"),
        ("set -q", 2, "set: -q: of set there are -e and +e"),
        ("cd /proc/meminfo", 1, "cd: /proc/meminfo: Not a directory"),
        ("help nosuch", 1, "help: no command 'nosuch'"),
        ("free now", 2, "free: now: free takes no operands"),
        ("[ a", 2, "[: no ] at the end"),
        ("echo x > /nosuch/file", 1, "/nosuch/file: No such file or directory"),
        ("cat < /nosuch", 1, "cat: /nosuch: No such file or directory"),
        ("cat host:/nosuch/file", 1, "cat: host:/nosuch/file: No such file or directory"),
    ],
)
def test_a_wrong_call_is_one_clear_line(script: str, status: int, says: str, sh: Ran) -> None:
    got, out, err = sh(script)
    assert (got, out) == (status, "")
    assert says in err
    assert err.count("\n") == 1


# --- pipes -----------------------------------------------------------------------------------------------------------


def counting(log: list[int]) -> Command:
    def run(io: Io, arguments: Sequence[str]) -> Output:
        for number in range(1_000_000):
            log.append(number)
            yield b"%d\n" % number
        return 0

    return Command("count", "", "Counts.", run)


def test_a_pipe_is_pulled_by_whoever_reads_it(sh: Ran) -> None:
    made: list[int] = []
    sh.shell.commands["count"] = counting(made)
    assert sh("count | grep 3 | head -2") == (0, "3\n13\n", "")
    assert len(made) <= 20


def test_a_command_whose_output_nobody_reads_still_does_its_work(sh: Ran, world: Path) -> None:
    def run(io: Io, arguments: Sequence[str]) -> Output:
        (world / "done").touch()
        return 0
        yield b""

    sh.shell.commands["act"] = Command("act", "", "Acts.", run)
    assert sh("act | true") == (0, "", "")
    assert (world / "done").exists()


def test_an_interruption_ends_the_command_and_the_line(sh: Ran) -> None:
    def run(io: Io, arguments: Sequence[str]) -> Iterator[bytes]:
        yield b"first\n"
        sh.shell.interrupted = True
        yield b"second\n"
        raise AssertionError("went on")

    sh.shell.commands["slow"] = Command("slow", "", "Is slow.", run)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        sh("slow; echo after")
    sh.shell.interrupted = False
    assert sh("echo on") == (0, "on\n", "")


def test_files_of_the_host_have_a_prefix(sh: Ran, tmp_path_factory: pytest.TempPathFactory) -> None:
    saved = tmp_path_factory.mktemp("host") / "saved"
    script = f"cat /sys/module/hello/refcnt > host:{saved}; echo more >> host:{saved}; cat host:{saved}"
    assert sh(script)[1] == "0\nmore\n"
    assert saved.read_text() == "0\nmore\n"
    assert sh(f"ls host:{saved.parent}")[1] == "saved\n"
    assert sh(f"echo host:{saved.parent}/s*")[1] == f"host:{saved}\n"


def test_every_command_has_help_with_an_example_that_parses(sh: Ran) -> None:
    listed = sh("help")[1]
    for name in sh.shell.names:
        assert f"\n{name} " in "\n" + listed
        said = sh(f"help '{name}'")[1]
        assert f"usage: {name}" in said
        examples = said.split("examples:\n", 1)[1].splitlines()
        for example in examples:
            assert parse(example)


# --- free ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "-h", "-b", "-m", "-w", "-t", "-g", "-k", "-h -w", "-t -h"])
def test_free_shows_what_procps_shows(options: str, sh: Ran, world: Path) -> None:
    need_program("free", "unshare")
    script = f"mount --bind {world}/proc/meminfo /proc/meminfo && exec free {options}"
    ran = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if ran.returncode:
        lacking(f"a mount namespace of one's own: {ran.stderr.strip()}")
    status, out, _ = sh(f"free {options}")
    assert status == 0
    *table, modules = out.splitlines(keepends=True)
    assert "".join(table) == ran.stdout
    assert modules.split()[0] == "Modules:"


def test_free_adds_up_what_modules_take(sh: Ran) -> None:
    lines = sh("free -b -M")[1].splitlines()[-3:]
    assert [line.split() for line in lines] == [["Modules:", "221184"], ["bonding:", "204800"], ["hello:", "16384"]]


def test_a_meminfo_with_little_in_it_is_shown_all_the_same() -> None:
    assert "Mem:" in free_text(parse_meminfo("MemTotal: 1 kB\nnonsense\n"), human)


# --- completion ------------------------------------------------------------------------------------------------------


class Names:
    def names(self) -> list[str]:
        return ["bonding", "hello", "snd_hda_intel"]

    def parameters(self, module: str) -> list[str]:
        return {"hello": ["my_param", "names"]}.get(module, [])


@pytest.fixture
def completer(sh: Ran) -> Completer:
    return Completer(sh.shell, Names())


@pytest.mark.parametrize(
    ("line", "start", "words"),
    [
        ("ca", 0, ["cat "]),
        ("echo a; ca", 8, ["cat "]),
        ("true && unam", 8, ["uname "]),
        ("cat x |he", 7, ["head ", "help "]),
        ("cat /pr", 4, ["/proc/"]),
        ("cat /proc/", 4, ["/proc/meminfo ", "/proc/sys/"]),
        ("cat sys/mod", 4, ["sys/module/"]),
        ("cat /li", 4, ["/link/"]),
        ("cat /od", 4, ["/odd\\ name "]),
        ("cat /odd\\ n", 4, ["/odd\\ name "]),
        ("cat </proc/m", 5, ["/proc/meminfo "]),
        ("echo x > /sys/module/hello/r", 9, ["/sys/module/hello/refcnt "]),
        ("ls -", 3, ["-1 ", "-F ", "-R ", "-a ", "-d ", "-l "]),
        ("help fre", 5, ["free "]),
        ("cat /nosuch/x", 4, []),
        ("cat 'quoted", 11, []),
        ("x=1 ca", 4, ["cat "]),
        ("", 0, None),
    ],
)
def test_what_may_stand_at_the_cursor_is_offered(
    line: str, start: int, words: list[str] | None, completer: Completer, sh: Ran
) -> None:
    found = completer.complete(line)
    assert found == (start, words if words is not None else [f"{name} " for name in sh.shell.names])


def test_modules_and_their_parameters_are_offered(completer: Completer, sh: Ran, tmp_path: Path) -> None:
    nothing = sh.shell.commands["true"].run
    sh.shell.commands |= {
        "modprobe": Command("modprobe", "", "", nothing, (), ("-r",), "modules"),
        "insmod": Command("insmod", "", "", nothing, (), (), "files"),
        "rmmod": Command("rmmod", "", "", nothing, (), (), "loaded"),
    }
    assert completer.complete("modprobe snd-h").words == ["snd_hda_intel "]
    assert completer.complete("modprobe hello my").words == ["my_param="]
    assert completer.complete("modprobe -r he").words == ["hello "]
    assert completer.complete("rmmod b").words == ["bonding "]
    (tmp_path / "one.ko").touch()
    (tmp_path / "one.txt").touch()
    (tmp_path / "onefolder").mkdir()
    assert completer.complete(f"insmod {tmp_path}/on").words == [f"{tmp_path}/one.ko ", f"{tmp_path}/onefolder/"]


def test_variables_are_offered(completer: Completer, sh: Ran) -> None:
    sh("module=hello; moment=1")
    assert completer.complete("echo $mo").words == ["$module ", "$moment "]


def test_ls_fills_a_terminals_width(sh: Ran, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    for number in range(12):
        (world / "proc/sys" / f"entry{number:02}").touch()
    sh.shell._out = screen = Terminal()
    sh.shell.run("ls /proc/sys")
    command = ["ls", "-C", "-w", "40", str(world / "proc/sys")]
    real = subprocess.run(command, capture_output=True, env=os.environ | {"LC_ALL": "C"}, check=True)
    shown = [[line.split() for line in text.splitlines()] for text in (screen.getvalue(), real.stdout)]
    assert shown[0] == shown[1]


def test_syntax_faults_carry_their_line() -> None:
    with pytest.raises(SyntaxFault) as caught:
        parse("true\ntrue )")
    assert caught.value.line == 2

"""``kobox explain`` on files and texts: what is printed, with which exit code, and that the JSON is as published."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from depot_roots import DepotRoot
from image_builders import RELEASE, KernelBuilder
from kobox.cli import main
from schemas import problems
from verdict_kernels import CONFIG, EXPORTS, fitting, types, using


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system with the small kernel, and a cache of its own."""
    root = tmp_path_factory.mktemp("root")
    (root / "boot").mkdir()
    (root / f"boot/vmlinuz-{RELEASE}").write_bytes(KernelBuilder(exports=EXPORTS, btf=types(), fillers=600).packed())
    (root / f"boot/config-{RELEASE}").write_text(CONFIG)
    DepotRoot(root, RELEASE).conf("etc/modprobe.d/x.conf", "options par odd=1\n").conf(
        "etc/sysctl.d/y.conf", "# nothing\nkernel.printk = 4\n"
    ).write()
    return root


@pytest.fixture(autouse=True)
def places(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOBOX_CACHE_DIR", str(root / "cache"))
    monkeypatch.setenv("KOBOX_DATA_DIR", str(root / "data"))
    monkeypatch.chdir(tmp_path)


def kernel(root: Path) -> str:
    return str(root / f"boot/vmlinuz-{RELEASE}")


def test_a_file_that_loads_is_answered_with_0(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitting("good").write(Path("good.ko"))
    assert main(["explain", "good.ko", "--root", str(root)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"good.ko: loads on {RELEASE} in {root}"


def test_a_file_that_does_not_is_answered_with_1_and_every_reason(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    using("bad", "nowhere", "spaced").write(Path("bad.ko"))
    assert main(["explain", "./bad.ko", "--image", kernel(root), "--cmdline", "module.sig_enforce=1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'./bad.ko: does not load on {RELEASE}: EKEYREJECTED, insmod says "Key was rejected by service"'
    assert lines[1] == "3 reasons, in the order in which they are met:"
    assert [line.strip()[:2] for line in lines if line.startswith("  ") and line[2].isdigit()] == ["1.", "2.", "3."]
    assert sum(line.startswith("     fix: ") for line in lines) == 3
    assert "     log: bad: Unknown symbol nowhere (err -2)" in lines


def test_several_kernels_and_files_make_one_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitting("good").write(Path("good.ko"))
    fitting("bad", vermagic="no").write(Path("bad.ko"))
    assert main(["explain", "./good.ko", "./bad.ko", "--image", kernel(root), "--image", kernel(root)]) == 1
    table = [line.split() for line in capsys.readouterr().out.splitlines()[:5]]
    assert table[0] == ["file", "kernel", "loads", "errno", "why"]
    assert table[1:] == [
        [name, RELEASE, *rest]
        for _ in range(2)
        for name, rest in (("./good.ko", ["yes", "-", "-"]), ("./bad.ko", ["no", "ENOEXEC", "vermagic"]))
    ]


def test_parameters_may_follow_a_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    using("par", "param_ops_int").param("number").write(Path("par.ko"))
    words = ["explain", "./par.ko", "--root", str(root), "number=zz"]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "par: `zz' invalid for parameter `number'" in said
    assert "it has no parameter 'odd'" in said
    assert main(["explain", "./par.ko", "--root", str(root), "./nothing.ko"]) == 2


def test_the_json_is_what_its_schema_says(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    using("bad", "nowhere", "spaced", "plain", vermagic="no", license="MIT").undefined("for_gpl").signature().write(
        Path("bad.ko")
    )
    using("user", "given", depends="bad").write(Path("user.ko"))
    assert main(["explain", "./bad.ko", "./user.ko", "--image", kernel(root), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert problems(answer, "verdicts") == []
    bad = answer["verdicts"][0]
    assert (bad["errno_name"], bad["insmod_says"]) == ("EBADMSG", "Bad message")
    assert [reason["order"] for reason in bad["reasons"]] == list(range(1, len(bad["reasons"]) + 1))


def test_options_of_the_judgement_reach_it(root: Path) -> None:
    fitting("giver").export("given", crc=9).write(Path("giver.ko"))
    using("taker", "given", vermagic="no").version("given", 9).write(Path("taker.ko"))
    words = ["explain", "./taker.ko", "--image", kernel(root)]
    assert main(words) == 1
    assert main([*words, "--force"]) == 0
    assert main([*words, "--force", "--insmod"]) == 1
    assert main([*words, "--force", "--insmod", "--after", "giver.ko"]) == 0
    assert main([*words, "--force", "--secure-boot"]) == 1


def test_sysctl_files_of_a_root_can_disable_modules(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitting("good").write(Path("good.ko"))
    conf = root / "etc/sysctl.d/z.conf"
    conf.write_text("kernel.modules_disabled = 1\n")
    try:
        assert main(["explain", "./good.ko", "--root", str(root)]) == 1
    finally:
        conf.unlink()
    assert f"modules are disabled: kernel.modules_disabled = 1 in {conf}" in capsys.readouterr().out


def test_without_any_kernel_the_file_cannot_be_judged(capsys: pytest.CaptureFixture[str]) -> None:
    fitting("good", vermagic="0.0.0-nowhere SMP ").write(Path("good.ko"))
    assert main(["explain", "./good.ko"]) == 2
    assert "kobox kernel add" in capsys.readouterr().err


def test_a_root_without_a_kernel_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DepotRoot(tmp_path / "bare", "5.0.0").module("a.ko").write()
    fitting("good").write(Path("good.ko"))
    assert main(["explain", "./good.ko", "--root", str(tmp_path / "bare")]) == 2
    assert "no kernel of that release" in capsys.readouterr().err


def test_a_text_is_explained_without_a_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "Required key not available"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Required key not available"
    assert any("mokutil" in line for line in lines)


def test_a_text_with_a_file_is_made_concrete(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitting("bad", vermagic="no").write(Path("bad.ko"))
    assert main(["explain", "Invalid module format", "./bad.ko", "--image", kernel(root)]) == 0
    said = capsys.readouterr().out
    assert "cause found:" in said
    assert "./bad.ko: does not load" in said


def test_a_file_that_the_text_names_is_judged_as_the_tool_that_failed_loads_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitting("giver").export("given", crc=9).write(Path("giver.ko"))
    using("taker", "given", depends="giver").version("given", 9).write(Path("taker.ko"))
    text = "insmod: ERROR: could not insert module taker.ko: Unknown symbol in module"
    assert main(["explain", text, "--image", kernel(root)]) == 0
    assert "brings no dependencies" in capsys.readouterr().out.partition("cause found:")[2]
    assert main(["explain", "./taker.ko", text, "--image", kernel(root), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [reason["rule"] for reason in answer["verdicts"][0]["reasons"]] == ["dependency-not-loaded"]


def test_a_log_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    log = b"[ 1.0] x: Unknown symbol foo (err -2)\n\xff\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(log)))
    assert main(["explain", "-", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert problems(answer, "advice") == []
    assert answer["answers"][0]["about"] == {"module": ["x"], "symbol": ["foo"]}


def test_an_unknown_text_is_answered_with_1_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "nothing of the kind"]) == 1
    assert "hint:" in capsys.readouterr().out


def test_live_and_root_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    fitting("good").write(Path("good.ko"))
    assert main(["explain", "./good.ko", "--live", "--image", "x"]) == 2
    assert "--live is this host" in capsys.readouterr().err

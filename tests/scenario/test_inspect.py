"""``kobox inspect`` finds each trick of the samples, and accuses no module of the distribution."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_files import example_file
from kobox.cli import main
from kobox.depot.names import is_module_file
from kobox.image import Image
from kobox.inspect import Inspector
from kobox.inspect.picture import differences
from kobox.sign.files import module_files
from schemas import problems_of_command

TRICKS = {
    "hide_list": "hidden-list",
    "hide_sysfs": "hidden-sysfs",
    "syscall_table": "syscall-table",
    "patch_text": "text-patched",
    "ftrace_hook": "ftrace-takeover",
    "idt_gate": "interrupt-table",
    "give_root": "gives-root",
    "data_hook": "constant-changed",
    "stay": "holds-itself",
    "see_packets": "netfilter-hook",
    "see_keys": "data-pointer",
}


@pytest.fixture(scope="module")
def inspector(debian_root: Path) -> Iterator[Inspector]:
    with Inspector(debian_root) as found:
        yield found


@pytest.mark.image
@pytest.mark.parametrize(("sample", "rule"), TRICKS.items())
def test_each_trick_is_found(inspector: Inspector, debian_image: Image, sample: str, rule: str) -> None:
    found = inspector.inspect(str(example_file(debian_image.release, f"rootkits/{sample}")))
    assert (found.result, found.crash) == (0, "")
    assert rule in {finding.rule for finding in found.findings}
    assert found.accused == (sample not in ("stay", "see_packets", "see_keys"))


@pytest.mark.image
def test_a_hook_says_what_the_module_is_told_of(inspector: Inspector, debian_image: Image) -> None:
    keys = inspector.inspect(str(example_file(debian_image.release, "rootkits/see_keys")))
    assert any(finding.place.startswith("keyboard_notifier_list") for finding in keys.findings)
    packets = inspector.inspect(str(example_file(debian_image.release, "rootkits/see_packets")))
    assert [finding.place for finding in packets.findings if finding.rule == "netfilter-hook"] == ["ipv4:0"]


@pytest.mark.image
@pytest.mark.parametrize("sample", ["hello", "kprobe", "livepatch", "proc", "misc", "notifier", "debugfs", "netdev"])
def test_an_honest_example_is_not_accused(inspector: Inspector, debian_image: Image, sample: str) -> None:
    found = inspector.inspect(str(example_file(debian_image.release, sample)))
    assert (found.result, found.crash, found.accused) == (0, "", False), found.findings


@pytest.mark.image
@pytest.mark.parametrize("root", ["debian_root", "trixie_root"])
@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.full)])
def test_no_module_of_the_distribution_is_accused(root: str, count: int, request: pytest.FixtureRequest) -> None:
    place: Path = request.getfixturevalue(root)
    files = module_files([str(place / "lib/modules")], is_module_file)
    random.Random(count).shuffle(files)
    with Inspector(place) as inspector:
        found = [inspector.inspect(file) for file in files[:count]]
    assert [one for one in found if one.accused] == []
    assert sum(one.result == 0 for one in found) > count // 2


@pytest.mark.image
def test_the_command_prints_and_answers(
    debian_root: Path, debian_image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = str(example_file(debian_image.release, "rootkits/hide_list"))
    good = str(example_file(debian_image.release, "hello"))
    # this process is not to be confined: other tests run in it
    assert main(["inspect", "--unconfined", "--image", str(debian_root), bad, good]) == 1
    said = capsys.readouterr().out
    assert "[hidden-list]" in said
    assert f"{good}: ran on {debian_image.release}; no alarms" in said
    assert main(["inspect", "--unconfined", "--image", str(debian_root), "--json", good]) == 0
    assert problems_of_command(json.loads(capsys.readouterr().out), "inspect") == []


@pytest.mark.image
def test_the_command_confines_itself_and_still_works(debian_root: Path, debian_image: Image) -> None:
    files = [str(example_file(debian_image.release, name)) for name in ("rootkits/give_root", "hello")]
    words = [sys.executable, "-m", "kobox", "inspect", "--image", str(debian_root), *files]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (1, "")
    assert "[gives-root]" in done.stdout


@pytest.mark.image
def test_what_is_no_module_is_one_line(debian_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noise.ko").write_bytes(b"noise")
    assert main(["inspect", "--unconfined", "--image", str(debian_root), str(tmp_path / "noise.ko"), "absent.ko"]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_differences_are_pieces_of_a_few_bytes() -> None:
    before = bytes(10000)
    after = bytearray(before)
    after[5] = after[7] = after[5000] = 1
    after[9990:9999] = b"x" * 9
    assert list(differences(before, bytes(after))) == [(5, 3), (5000, 1), (9990, 9)]
    assert list(differences(before, before)) == []

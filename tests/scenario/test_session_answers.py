"""What the commands about sessions print as JSON is what their schemas say, and completion knows of sessions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kobox.cli import main
from kobox.cli.complete import complete
from paths import EXAMPLES
from schemas import problems_of_command

pytestmark = pytest.mark.image


@pytest.fixture(scope="module", autouse=True)
def _session(kobox_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        assert main(["boot", "--image", kobox_image, "--name", "first"]) == 0
        yield
        main(["halt", "--all"])


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    def answer(*words: str) -> Any:
        capsys.readouterr()
        assert main(list(words)) == 0
        return json.loads(capsys.readouterr().out)

    return answer


@pytest.mark.parametrize("words", ["ps", "ls /proc /sys", "ls -l /proc/sys/kernel", "dmesg"])
def test_an_answer_is_what_its_schema_says(ask: Any, words: str) -> None:
    found = ask(*words.split(), "--json")
    assert found
    assert problems_of_command(found, words.split()[0]) == []


def test_nothing_is_interrupted_where_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["interrupt", "--json"])
    assert problems_of_command(json.loads(capsys.readouterr().out), "interrupt") == []


def test_modules_go_in_and_out(ask: Any) -> None:
    assert problems_of_command(ask("insmod", "--json", str(EXAMPLES / "hello.ko")), "insmod") == []
    listed = ask("lsmod", "--json")
    assert (problems_of_command(listed, "lsmod"), len(listed)) == ([], 1)
    assert complete(["rmmod", ""]).words == complete(["modprobe", "-r", "--session", "first", ""]).words
    assert [word for word, _ in complete(["rmmod", ""]).words] == ["hello"]
    assert problems_of_command(ask("rmmod", "--json", "hello"), "rmmod") == []


def test_each_event_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", "--since", "0", "--no-follow", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert [problems_of_command(json.loads(line), "events") for line in lines] == [[]] * len(lines)


def test_the_life_of_a_session(ask: Any, kobox_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOBOX_DATA_DIR", str(tmp_path / "data"))
    assert problems_of_command(ask("boot", "--json", "--image", kobox_image, "--name", "second"), "boot") == []
    assert problems_of_command(ask("save", "--json", "--session", "second", "kept"), "save") == []
    listed = ask("restore", "--list", "--json")
    assert (problems_of_command(listed, "restore"), len(listed)) == ([], 1)
    assert problems_of_command(ask("restore", "--json", "--name", "third", "kept"), "restore") == []
    assert problems_of_command(ask("reboot", "--json", "--session", "third"), "reboot") == []
    for name in ("second", "third"):
        assert problems_of_command(ask("halt", "--json", "--session", name), "halt") == []


def test_completion_knows_sessions_and_their_kernels_files() -> None:
    def words(*line: str) -> list[str]:
        return [word for word, _ in complete(line).words]

    assert "first" in words("cat", "--session", "")
    assert words("cat", "/proc/vers") == ["/proc/version"]
    assert words("ls", "/proc/sys/ker") == ["/proc/sys/kernel/"]
    assert words("cat", "--session", "none", "/proc/vers") == []
    assert words("boot", "--name", "") == []
    assert words("modprobe", "dumm") == ["dummy", "dummy_hcd"]
    assert "numdummies=" in words("modprobe", "--session", "first", "dummy", "num")

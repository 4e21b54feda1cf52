"""Every command that prints JSON has a published schema, and what it prints is what the schema says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from headers import kernel_headers
from kobox.cli import main
from kobox.cli.described import usage_of
from kobox.cli.schema import load, schema_of
from kobox.cli.table import COMMANDS
from kobox.watch import records
from paths import EXAMPLES
from schemas import problems, problems_of_command

NAMES = sorted(load()[0])
Answer = Callable[..., Any]


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Answer:
    def ask(*words: str) -> Any:
        capsys.readouterr()
        main(list(words))
        return json.loads(capsys.readouterr().out)

    return ask


def prints_json(name: str) -> bool:
    usage = usage_of(name)
    return any("--json" in option.names for one in (usage, *usage.verbs) for option in one.options)


def test_every_command_that_prints_json_has_a_schema() -> None:
    assert {name for name in COMMANDS if prints_json(name)} - set(NAMES) == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_has_a_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", name]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema_of(name)
    Draft202012Validator.check_schema(printed)
    assert re.fullmatch(rf"urn:kobox:schema:{name}:[1-9]\d*", printed["$id"])
    referred = set(re.findall(r"#/\$defs/([^\"]+)", json.dumps(printed)))
    assert referred == set(printed["$defs"])


def test_no_definition_is_left_over_or_there_twice() -> None:
    commands, definitions = load()
    used = {name for command in commands for name in schema_of(command)["$defs"]}
    assert used == set(definitions)
    files = (Path(__file__).parents[3] / "src/kobox/cli/schemas").glob("*.json")
    assert sum(len(json.loads(file.read_bytes())["$defs"]) for file in files) == len(definitions)


def test_the_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES


def test_an_unknown_schema_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "rum"]) == 2
    assert "no schema 'rum'; hint: did you mean 'run'?" in capsys.readouterr().err


@pytest.mark.parametrize("example", ["hello", "leak", "walk_oops", "hostile/overrun"])
def test_run_on_the_bare_kernel(example: str, answer: Answer) -> None:
    found = answer("run", "--json", "--image", "bare", str(EXAMPLES / f"{example}.ko"))
    assert problems_of_command(found, "run") == []


@pytest.mark.image
@pytest.mark.parametrize("example", ["hello", "leak", "walk_oops", "hostile/overrun", "hostile/double_free"])
def test_run_on_an_image(example: str, answer: Answer, debian_root: Path) -> None:
    found = answer("run", "--json", "--image", str(debian_root), str(EXAMPLES / f"{example}.ko"))
    assert problems_of_command(found, "run") == []


def test_a_module_that_is_refused(answer: Answer) -> None:
    found = answer("run", "--json", "--image", "bare", str(EXAMPLES / "hello.ko"), "my_param=seven")
    assert found["result"]
    assert problems_of_command(found, "run") == []


@pytest.mark.image
def test_images_and_cache(answer: Answer, debian_root: Path) -> None:
    shown = answer("kernel", "show", "--json", str(debian_root))
    assert (problems_of_command(shown, "kernel"), shown["exports"] > 1000) == ([], True)
    for words in ("kernel list", "cache show", "cache path", "cache limit"):
        assert problems_of_command(answer(*words.split(), "--json"), words.split()[0]) == []


@pytest.mark.image
def test_a_signed_module_and_a_built_one(answer: Answer, debian_root: Path) -> None:
    for file in (next(debian_root.rglob("dummy.ko*")), EXAMPLES / "hello.ko", EXAMPLES / "exporter.ko"):
        assert problems_of_command(answer("readko", "--json", "--all", str(file)), "readko") == []
    assert problems_of_command(answer("readko", "--json", str(file)), "readko") == []


def test_taint_and_oops(answer: Answer, tmp_path: Path) -> None:
    for words in (["12288"], ["--list"], ["G           OE"]):
        assert problems_of_command(answer("taint", "--json", *words), "taint") == []
    log = answer("run", "--json", "--image", "bare", str(EXAMPLES / "walk_oops.ko"))["log"]
    file = tmp_path / "log"
    file.write_text("".join(f"[{record['time']:12.6f}] {record['text']}\n" for record in log))
    found = answer("oops", "--json", "--module", str(EXAMPLES / "walk_oops.ko"), str(file))
    assert (problems_of_command(found, "oops"), len(found)) == ([], 1)


def test_profiles(answer: Answer) -> None:
    assert problems_of_command(answer("audit", "--list-profiles", "--json"), "audit") == []


@pytest.mark.parametrize("options", [[], ["-x"]])
def test_a_log(answer: Answer, options: list[str], tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("<6>[    1.000000] one\n<28>[    2.000000] two\n")
    found = answer("dmesg", "--json", *options, "-F", str(file))
    assert (problems_of_command(found, "dmesg"), len(found["dmesg"])) == ([], 2)


def test_events_of_the_edit_loop() -> None:
    test = records.Test("test_h.py::test_a", "failed", 0.1, "text", (("kernel log", "line"),))
    bodies = {
        "watching": {"folder": "/x", "images": ["6.1"], "tests": []},
        "ready": {"seconds": 1.5},
        "changed": {"files": ["hello.c"]},
        "test": test,
        "result": records.Result(False, "run", 1, 1, 0, 7.9, None, 0.3),
    }
    for event in (*(records.Event(kind, body) for kind, body in bodies.items()), records.note("warning", "text")):
        assert problems_of_command(json.loads(json.dumps(event.as_data())), "watch") == []
    assert problems_of_command({"event": "result", "time": 1.0}, "watch") != []


@pytest.mark.image
def test_the_edit_loop_prints_builds_and_modules(debian_root: Path, tmp_path: Path) -> None:
    kernel_headers()
    (tmp_path / "hello.c").write_text((EXAMPLES.parent / "hello.c").read_text())
    words = ["watch", "--once", "--json", "--image", str(debian_root), str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "kobox", *words], capture_output=True, text=True, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"watching", "build", "result"} <= {event["event"] for event in events}, done.stderr
    for event in events:
        assert problems_of_command(event, "watch") == []
        record = {key: value for key, value in event.items() if key not in ("event", "time")}
        if event["event"] in ("build", "module"):
            assert problems(record, {"build": "build", "module": "run"}[event["event"]]) == []


@pytest.mark.image
def test_a_trace(answer: Answer, debian_root: Path) -> None:
    found = answer("trace", "--json", "--image", str(debian_root), str(EXAMPLES / "hello.ko"))
    assert (problems_of_command(found, "trace"), bool(found["calls"])) == ([], True)

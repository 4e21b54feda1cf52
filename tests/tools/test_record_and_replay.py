"""Cases recorded on a real kernel in QEMU, and replayed: kobox answers as that kernel did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tools.record_golden import main as record
from tools.replay_golden import main as replay

from needs import need_program
from paths import EXAMPLES

pytestmark = [pytest.mark.full, pytest.mark.image]


def load(name: str, params: str = "", flags: int = 0) -> dict[str, Any]:
    return {"action": "finit_module", "args": {"file": f"ko/{name}.ko", "params": params, "flags": flags}}


def unload(name: str, *flags: str) -> dict[str, Any]:
    return {"action": "delete_module", "args": {"name": name, "flags": ["O_NONBLOCK", *flags]}}


def write(path: str, data: str) -> dict[str, Any]:
    return {"action": "write", "args": {"path": path, "data": data}}


READ_MODULES = {"action": "read", "args": {"path": "/proc/modules"}}
PARAMETER = "/sys/module/hello/parameters/my_param"
CASES: dict[str, list[dict[str, Any]]] = {
    "a life": [
        load("hello", "my_param=7"),
        READ_MODULES,
        write(PARAMETER, "x"),
        write(PARAMETER, "9"),
        unload("hello"),
    ],
    "refused": [load("hello", "my_param=zz"), load("hello", flags=8), load("user"), unload("hello")],
    "used": [load("exporter"), load("user"), unload("exporter", "O_TRUNC"), unload("user"), unload("exporter")],
    "symbols": [load("exporter"), {"action": "kallsyms", "args": {"module": "exporter"}}],
    "an oops": [load("divide"), READ_MODULES, unload("divide")],
    "a failing init": [load("fail_init"), READ_MODULES],
}


def test_what_a_real_kernel_answered_is_what_kobox_answers(
    tmp_path: Path, debian_root: Path, kobox_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    need_program("qemu-system-x86_64", "gcc")
    (tmp_path / "ko").mkdir()
    for name in ("hello", "exporter", "user", "hostile/divide", "hostile/fail_init"):
        (tmp_path / f"ko/{Path(name).name}.ko").write_bytes((EXAMPLES / f"{name}.ko").read_bytes())
    watch = ["hello", "exporter", "user", "divide"]
    cases = [
        {"id": name, "group": "oops" if "oops" in name else "basic", "watch": watch, "boot_args": "", "steps": steps}
        for name, steps in CASES.items()
    ]
    (tmp_path / "golden.json").write_text(json.dumps(cases))
    recorded = tmp_path / "recorded"
    assert record([str(tmp_path), "--root", str(debian_root), "--out", str(recorded)]) == 0
    steps = {case["id"]: case["steps"] for case in json.loads((recorded / "golden.json").read_text())}
    assert [step["errno"] for step in steps["refused"]] == ["EINVAL", "EINVAL", "ENOENT", "ENOENT"]
    capsys.readouterr()
    assert replay([str(recorded), "--image", kobox_image]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.splitlines()[-1] == "6 of 6 agree"

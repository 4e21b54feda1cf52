"""The modules in ``examples/prebuilt`` are what the sources beside them give.

With the same kernel headers and tools they are equal byte for byte. With another release or compiler, code and
checksums differ by nature; then what a module says of itself must be equal: modinfo, parameters, exports, and what it
imports apart from helpers that a compiler may or may not call.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_headers import made_with
from rebuild_examples import MADE_WITH, build

from headers import Headers, kernel_headers
from kobox.ko import KernelModule, read_module

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
PREBUILT = EXAMPLES / "prebuilt"
MODULES = sorted(str(path.relative_to(PREBUILT).with_suffix("")) for path in PREBUILT.rglob("*.ko"))
HELPER = re.compile(
    r"__x86_(indirect|return)_thunk|__stack_chk_fail|__fentry__|mem(cpy|set|move)$|str\w+$|kmalloc|__kmalloc"
)


@pytest.fixture(scope="module")
def headers() -> Headers:
    return kernel_headers()


@pytest.fixture(scope="module")
def rebuilt(headers: Headers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All modules, built once even when several processes run these tests."""
    shared = (
        tmp_path_factory.getbasetemp().parent if os.environ.get("PYTEST_XDIST_WORKER") else tmp_path_factory.mktemp("x")
    )
    out = shared / "rebuilt-examples"
    with open(shared / "rebuilt-examples.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / MADE_WITH).exists():
            build(headers, out)
    return out


def sources() -> Iterator[str]:
    for path in EXAMPLES.rglob("*.c"):
        yield str(path.relative_to(EXAMPLES).with_suffix(""))


def facts(module: KernelModule) -> dict[str, object]:
    """What a module says of itself, whatever compiled it."""
    return {
        "modinfo": [item for item in module.modinfo.items if item[0] not in ("vermagic", "retpoline")],
        "parameters": sorted(parameter.name for parameter in module.params),
        "exports": sorted((export.name, export.gpl, export.namespace) for export in module.exports),
        "imports": sorted(symbol.name for symbol in module.imports if not HELPER.match(symbol.name)),
    }


def test_every_source_has_its_module() -> None:
    assert sorted(sources()) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_a_prebuilt_module_is_what_its_source_gives(name: str, headers: Headers, rebuilt: Path) -> None:
    committed, fresh = PREBUILT / f"{name}.ko", rebuilt / f"{name}.ko"
    if made_with(headers) == json.loads((PREBUILT / MADE_WITH).read_text()):
        assert fresh.read_bytes() == committed.read_bytes(), "run tools/rebuild_examples.py and commit what it made"
    assert facts(read_module(fresh)) == facts(read_module(committed))


@pytest.mark.parametrize("name", MODULES)
def test_a_prebuilt_module_names_no_path_of_the_machine_it_was_built_on(name: str) -> None:
    data = (PREBUILT / f"{name}.ko").read_bytes()
    assert not re.search(rb"/(tmp|home|root|work|build|usr)/", data)
    assert b".debug_info" not in data


@pytest.mark.parametrize("name", MODULES)
def test_every_example_has_our_licence_and_a_description(name: str) -> None:
    module = read_module(PREBUILT / f"{name}.ko")
    assert module.modinfo.get("license") == "Dual MIT/GPL"
    assert module.modinfo.get("description")
    source = (EXAMPLES / f"{name}.c").read_text()
    assert source.startswith("// SPDX-License-Identifier: MIT OR GPL-2.0\n/*\n * " + Path(name).name + ": ")


def test_the_readme_lists_every_example_and_no_other() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(Path(name).name for name in MODULES)

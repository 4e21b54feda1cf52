"""Every JSON answer of the module tools is what the published schema says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import KoBuilder
from depot_roots import DepotRoot
from kobox.cli import main
from schemas import problems, problems_of_command

OLD, NEW = "6.1.0", "6.12.0"

CONF = """
alias x foo
blacklist bad
options foo a=1
install inst /bin/false
remove foo /bin/true
softdep bar pre: bi post: foo
weakdep foo bar
nonsense
"""


@pytest.fixture
def root(tmp_path: Path) -> str:
    content = KoBuilder("foo").module(vermagic=f"{OLD} SMP ").version("printk", 0x1234).build()
    old = DepotRoot(tmp_path, OLD).module("kernel/foo.ko", needs=["kernel/bar.ko"], content=content)
    old.module("kernel/bar.ko").module("kernel/bad.ko").module("updates/vendor.ko").builtin("kernel/bi.ko")
    old.alias("fs-foo", "foo").conf("etc/modprobe.d/x.conf", CONF).conf("etc/modules-load.d/y.conf", "foo\n")
    old.loaded("bar", 1, ("foo",)).conf("proc/modules", "bar 4096 1 foo, Live 0x0\n").softdep("softdep foo pre: bar\n")
    old.conf("mine.toml", "[[module]]\nname = 'bad'\n[[module]]\nname = 'bi'\n[[module]]\nname = 'none'\n").write()
    DepotRoot(tmp_path, NEW).module("kernel/bar.ko").write()
    return str(tmp_path)


@pytest.mark.parametrize(
    ("words", "name", "is_list"),
    [
        ("modprobe --root ROOT -S 6.1.0 --json fs-foo", "plan", True),
        ("modprobe --root ROOT -S 6.1.0 --json -b bad", "plan", True),
        ("modprobe --root ROOT -S 6.1.0 --json -a inst bi", "plan", True),
        ("modprobe --root ROOT -S 6.1.0 --json -r -a bar foo bi", "remove_plan", True),
        ("modprobe --root ROOT -S 6.1.0 --json -R fs-foo", "lookup", True),
        ("modprobe --root ROOT -S 6.1.0 --json -c", "config", False),
        ("modprobe --root ROOT -S 6.1.0 --json --show-modversions foo", "symbol_versions", True),
        ("lsmod --root ROOT --json", "loaded", True),
        ("explain --root ROOT -S 6.1.0 --json foo fs-foo nope", "explanation", True),
        ("explain --root ROOT --json --upgrade 6.1.0 6.12.0", "upgrade", False),
        ("audit ROOT -S 6.1.0 --json --profile ROOT/mine.toml", "audit", False),
        ("audit ROOT -S 6.1.0 --json --allow foo", "allow_list", False),
    ],
)
def test_an_answer_is_what_its_schema_says(
    root: str, capsys: pytest.CaptureFixture[str], words: str, name: str, is_list: bool
) -> None:
    main(words.replace("ROOT", root).split())
    answer: Any = json.loads(capsys.readouterr().out)
    assert answer
    assert problems_of_command(answer, words.split()[0]) == []
    answers = answer if is_list else [answer]
    assert [found for one in answers for found in problems(one, name)] == []


def test_the_check_itself_finds_what_is_wrong() -> None:
    wrong = {"name": 1, "size": True, "refcount": None, "holders": [2], "state": "odd", "more": 0}
    assert len(problems(wrong, "loaded")) == 5
    assert len(problems({}, "rmmod")) == 2

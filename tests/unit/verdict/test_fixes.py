"""Every rule that the code can give has a fix, and no fix is for a rule that nobody gives."""

from __future__ import annotations

import re
from pathlib import Path

import kobox.verdict
from kobox.verdict.faults import FAULTS
from kobox.verdict.fixes import FIXES

FOLDER = Path(kobox.verdict.__file__).parent
GIVEN = re.compile(r'(?:refuse|refused|fix_of|Reason)\(\s*"([a-z-]+)"|"((?:signature|symbol|dependency|bare)-[a-z-]+)"')


def test_rules_and_fixes_are_the_same_set() -> None:
    code = [
        path.read_text() for path in FOLDER.glob("*.py") if path.name not in ("fixes.py", "texts.py", "concrete.py")
    ]
    given = {first or second for text in code for first, second in GIVEN.findall(text)}
    given |= {rule for rule, _ in FAULTS.values()} | {"elf", "parameter", "parameter-lockdown", "kernel-crash"}
    assert given == set(FIXES)


def test_a_fix_needs_only_names_that_are_given() -> None:
    known = {"name", "file", "release", "path", "by", "owners", "imports"}
    for rule, sentence in FIXES.items():
        assert set(re.findall(r"\{(\w+)\}", sentence)) <= known, rule

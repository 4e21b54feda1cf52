"""What a pasted error text means, and what it means here: the table of ``texts`` matched, filled in and made concrete.

Needs no kernel and no file. Verdicts about a file prove or clear causes; ``concrete`` looks up what a text names.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from kobox.abi.errno_names import MODULE_MEANINGS, NUMBERS, name_of
from kobox.verdict.faults import vermagic_words, word_text
from kobox.verdict.records import Note, Reason, Verdict
from kobox.verdict.render import VERSION, as_data, text_lines
from kobox.verdict.texts import ENTRIES, INIT, Cause, Entry

_FLAGS = re.IGNORECASE | re.MULTILINE
_ERRNO_NAME = re.compile(r"\b(E[A-Z0-9]{3,})\b")
_ERRNO_NUMBER = re.compile(r"(?:err(?:or|no)?|returned|ret|rc|result|status|code)[ =:]*-(\d{1,3})\b", re.IGNORECASE)
_UNSAID = {"module": "MODULE", "file": "FILE.ko", "symbol": "SYMBOL", "parameter": "PARAMETER", "owner": "OTHER"}
_ELSEWHERE = (
    (re.compile(r"\bOops\b|\bBUG:|Call Trace:|kernel panic", re.IGNORECASE), "kobox oops decodes a crash report"),
    (re.compile(r"\bTainted:", re.IGNORECASE), "kobox taint explains what tainted a kernel"),
)


class Fact(NamedTuple):
    """What is known of a name. ``rule``: of the reason that it would be, empty when it is none."""

    text: str
    rule: str = ""


class Lookup(Protocol):
    """Knows the names that a text is about."""

    def facts(self, about: Mapping[str, tuple[str, ...]]) -> list[Fact]:
        """What is known about symbols and modules."""


class Match(NamedTuple):
    """An entry that the text holds, with the names that stand in it."""

    entry: Entry
    about: Mapping[str, tuple[str, ...]]


class Likely(NamedTuple):
    """A cause, filled in. ``proven`` names the files and kernels for which a verdict found just this."""

    text: str
    fix: str
    tell: tuple[str, ...]
    rules: tuple[str, ...]
    proven: tuple[str, ...] = ()


class Answer(NamedTuple):
    """One thing that the text says. ``about`` are the names in it, ``here`` what is known about them, ``also`` the
    other texts in the paste that say the same."""

    key: str
    title: str
    meaning: str
    harmless: bool
    about: Mapping[str, tuple[str, ...]]
    causes: tuple[Likely, ...]
    here: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


class Advice(NamedTuple):
    """``answers`` is empty for a text that nobody knows; ``hint`` says then what to do instead."""

    answers: tuple[Answer, ...]
    verdicts: tuple[Verdict, ...] = ()
    hint: str = ""


def advise(
    matched: Sequence[Match], text: str, verdicts: Sequence[Verdict] = (), lookup: Lookup | None = None
) -> Advice:
    """Explain ``text`` by what ``matches`` found in it."""
    if not matched:
        return Advice((), tuple(verdicts), _hint(text))
    said = {key for entry, _ in matched for key in entry.explains}
    also = {entry.key: entry.title for entry, _ in matched if entry.key in said}
    kept = [match for match in matched if match.entry.key not in said]
    order = sorted(kept, key=lambda match: (match.entry.harmless, match.entry.by != "log"))
    answers = [
        _answer(match, verdicts, lookup, [also[key] for key in match.entry.explains if key in also]) for match in order
    ]
    return Advice(tuple(answers), tuple(verdicts))


def matches(text: str) -> list[Match]:
    """Every entry of the table that the text holds."""
    found = []
    for entry in ENTRIES:
        about = _match(entry, text)
        if about is not None:
            found.append(Match(entry, about))
    if all(entry.harmless for entry, _ in found):
        known = [entry for entry, _ in found]
        found += [match for match in _by_errno(text) if match.entry not in known]
    return found


def _match(entry: Entry, text: str) -> dict[str, tuple[str, ...]] | None:
    """The names in all places where the first of the patterns that occurs at all occurs."""
    for pattern in entry.patterns:
        places = list(re.finditer(pattern, text, _FLAGS))
        if places:
            names: dict[str, dict[str, None]] = {}
            for place in places:
                for name, value in place.groupdict().items():
                    if value is not None:
                        names.setdefault(name, {})[value.strip("'\"`").rstrip(",.:")] = None
            return {name: tuple(values) for name, values in names.items()}
    return None


def _by_errno(text: str) -> list[Match]:
    """Error numbers by name, or as kernel messages print them."""
    names = [name for name in _ERRNO_NAME.findall(text) if name in NUMBERS]
    names += [name_of(int(number)) for number in _ERRNO_NUMBER.findall(text)]
    found: dict[str, Match] = {}
    for name in dict.fromkeys(names):
        known = [entry for entry in ENTRIES if name in entry.errno]
        for entry in known or [_of_errno(name)]:
            found.setdefault(entry.key, Match(entry, {}))
    return list(found.values())


def _of_errno(name: str) -> Entry:
    """For a number that only a module's own code gives."""
    number = NUMBERS.get(name)
    words = MODULE_MEANINGS.get(name) or (
        os.strerror(number) if number and number < 512 else "an error of the kernel's"
    )
    return Entry(f"errno-{name}", name, f"{words}: loading a module gives it when its init function does", (), (INIT,))


def _answer(match: Match, verdicts: Sequence[Verdict], lookup: Lookup | None, also: Sequence[str]) -> Answer:
    entry, about = match
    words: dict[str, str] = defaultdict(lambda: "…", _UNSAID)
    words.update({name: values[0] for name, values in about.items()})
    if verdicts:
        words |= {"file": verdicts[0].file, "module": verdicts[0].module}
    elif "file" not in about and "module" in about:
        words["file"] = words["module"]
    facts = lookup.facts(about) if lookup is not None else []
    causes = [_likely(cause, words, verdicts, facts) for cause in entry.causes]
    causes.sort(key=lambda cause: not cause.proven)
    here = [*_of_vermagic(about), *(fact.text for fact in facts)]
    return Answer(entry.key, entry.title, entry.meaning, entry.harmless, about, tuple(causes), tuple(here), tuple(also))


def _likely(cause: Cause, words: Mapping[str, str], verdicts: Sequence[Verdict], facts: Sequence[Fact]) -> Likely:
    proven = [
        f"{verdict.file} on {verdict.target}: {reason.text}"
        for verdict in verdicts
        for reason in _said(verdict)
        if reason.rule in cause.rules
    ] or [fact.text for fact in facts if fact.rule and fact.rule in cause.rules]
    tell = tuple(line.format_map(words) for line in cause.tell)
    return Likely(cause.text.format_map(words), cause.fix.format_map(words), tell, cause.rules, tuple(proven))


def _said(verdict: Verdict) -> list[Reason | Note]:
    return [*verdict.reasons, *verdict.notes]


def _of_vermagic(about: Mapping[str, tuple[str, ...]]) -> list[str]:
    if "built" not in about or "expected" not in about:
        return []
    words = vermagic_words(about["built"][0], about["expected"][0], False)
    return ["the two differ in: " + (", ".join(map(word_text, words)) or "blanks and the order of words")]


def _hint(text: str) -> str:
    for pattern, hint in _ELSEWHERE:
        if pattern.search(text):
            return hint
    return "paste the message of insmod or modprobe, or the kernel's lines (dmesg); kobox explain FILE.ko judges a file"


# -- renderings


def advice_json(advice: Advice) -> dict[str, Any]:
    """The JSON of ``kobox explain TEXT --json``."""
    return {
        "version": VERSION,
        "answers": [
            {
                "key": answer.key,
                "title": answer.title,
                "meaning": answer.meaning,
                "harmless": answer.harmless,
                "about": {name: list(values) for name, values in answer.about.items()},
                "causes": [
                    {
                        "text": cause.text,
                        "tell": list(cause.tell),
                        "fix": cause.fix,
                        "rules": list(cause.rules),
                        "proven": list(cause.proven),
                    }
                    for cause in answer.causes
                ],
                "here": list(answer.here),
                "also": list(answer.also),
            }
            for answer in advice.answers
        ],
        "verdicts": as_data(advice.verdicts)["verdicts"],
        "hint": advice.hint or None,
    }


def advice_lines(advice: Advice) -> list[str]:
    """For people."""
    if not advice.answers:
        lines = ["this text is not known", f"hint: {advice.hint}"]
    else:
        lines = []
    for number, answer in enumerate(advice.answers):
        lines += ([""] if number else []) + _answer_lines(answer)
    if advice.verdicts:
        lines += ["", *text_lines(advice.verdicts)]
    return lines


def _answer_lines(answer: Answer) -> list[str]:
    lines = [answer.title + (" (no error)" if answer.harmless else ""), f"  {answer.meaning}"]
    lines += [f"  the same is meant by: {title}" for title in answer.also]
    lines += [f"  here: {line}" for line in answer.here]
    proven = any(cause.proven for cause in answer.causes)
    lines.append("  cause found:" if proven else "  causes, likeliest first:" if len(answer.causes) > 1 else "  cause:")
    for number, cause in enumerate(answer.causes, 1):
        if proven and not cause.proven:
            continue
        lines.append(f"  {number}. {cause.text}")
        lines += [f"     found: {found}" for found in cause.proven]
        lines += [f"     tell:  {line}" for line in cause.tell]
        lines.append(f"     fix:   {cause.fix}")
    return lines

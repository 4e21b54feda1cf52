"""Pasted texts are recognised inside whatever was pasted with them, and answered from the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from image_builders import RELEASE
from kobox.image import Image
from kobox.verdict.advice import Advice, advice_json, advice_lines, advise, matches
from kobox.verdict.concrete import Kernels, judge_named
from kobox.verdict.fixes import FIXES
from kobox.verdict.texts import ENTRIES
from schemas import problems
from verdict_kernels import VERMAGIC, fitting, session, subject, using

PASTED = {
    "insmod: ERROR: could not insert module ./x.ko: Invalid module format": "invalid-module-format",
    "insmod: ERROR: could not insert module x.ko: Unknown symbol in module": "unknown-symbol-in-module",
    "modprobe: ERROR: could not insert 'x': Exec format error": "invalid-module-format",
    "modprobe: ERROR: could not insert 'nvidia': Required key not available": "required-key-not-available",
    "modprobe: ERROR: could not insert 'vboxdrv': Key was rejected by service": "key-was-rejected",
    "rmmod: ERROR: Module ext4 is in use": "module-in-use",
    "rmmod: ERROR: Module usbcore is in use by: xhci_hcd ehci_hcd": "module-in-use",
    "Module in use": "module-in-use",
    "modprobe: FATAL: Module wl not found in directory /lib/modules/6.1.0-56-amd64": "module-not-found",
    "FATAL: Module not found": "module-not-found",
    "modprobe: FATAL: Module ext4 is builtin.": "module-builtin",
    "rmmod: ERROR: Module foo is not currently loaded": "not-loaded",
    "insmod: ERROR: could not insert module x.ko: Operation not permitted": "operation-not-permitted",
    "insmod: ERROR: could not insert module x.ko: Invalid parameters": "invalid-parameters",
    "modprobe: ERROR: could not insert 'kvm_intel': No such device": "no-such-device",
    "insmod: ERROR: could not insert module x.ko: Cannot allocate memory": "cannot-allocate-memory",
    "insmod: ERROR: could not insert module hello.ko: File exists": "file-exists",
    "insmod: ERROR: could not load module hello: No such file or directory": "no-such-file",
    "rmmod: ERROR: could not remove 'x': Resource temporarily unavailable": "module-in-use",
    "could not remove module x: Device or resource busy": "busy",
    "insmod: ERROR: could not insert module x.ko: Bad message": "bad-message",
    "insmod: ERROR: could not insert module x.ko: Module has wrong symbol version": "wrong-symbol-version",
    "modprobe: ERROR: could not insert 'x': Unknown symbol in module, or unknown parameter (see dmesg)":
        "unknown-symbol-or-parameter",
    "[  9.1] x: disagrees about version of symbol module_layout": "log-disagrees",
    "[  9.1] x: no symbol version for module_layout": "log-disagrees",
    "kernel: x: version magic '6.1.0 SMP ' should be '6.2.0 SMP '": "log-version-magic",
    "[    5.2] x: module verification failed: signature and/or required key missing - tainting kernel":
        "log-verification-failed",
    "x: Unknown symbol foo (err -2)": "log-unknown-symbol",
    "x: Unknown symbol foo (err 0)": "log-unknown-symbol",
    "x: Unknown symbol foo (err -22)": "log-unknown-symbol-einval",
    "Loading of unsigned module is rejected": "log-rejected",
    "Loading of module with unavailable key is rejected": "log-rejected",
    "Lockdown: insmod: unsigned module loading is restricted; see man kernel_lockdown.7": "log-lockdown",
    "x: module uses symbol (foo) from namespace CRYPTO_INTERNAL, but does not import it.": "log-namespace",
    "x: exports duplicate symbol foo (owned by kernel)": "log-duplicate-symbol",
    "Module x is blacklisted": "log-blacklisted",
    "x: `zz' invalid for parameter `num'": "log-parameter",
    "x: unknown parameter 'foo' ignored": "log-unknown-parameter",
    "x: loading out-of-tree module taints kernel.": "log-out-of-tree",
    "nvidia: module license 'NVIDIA' taints kernel.": "log-licence",
    "module x: .gnu.linkonce.this_module section size must match the kernel's built struct module size at run time":
        "log-this-module",
    "Invalid ELF header magic: != \x7fELF": "log-elf",
    "x: module has no symbols (stripped?)": "log-elf",
    "x: No module found in object": "log-elf",
    "kernel: x: module is already loaded": "log-already-loaded",
    "x: Could not allocate 60000 bytes percpu data": "log-percpu",
    "failed to validate module [x] BTF: -22": "log-btf",
    "module: overflow in relocation type 10 val ffff8880": "log-relocation",
    "x: section .init.text (index 4) has invalid WRITE|EXEC flags": "log-write-exec",
    "x: gave up waiting for init of module y.": "log-gave-up",
    "PKCS#7 signature not signed with a trusted key": "log-untrusted-key",
    "EKEYREJECTED": "key-was-rejected",
    "x: probe failed with error -19": "no-such-device",
}  # fmt: skip


def explain(text: str) -> Advice:
    return advise(matches(text), text)


@pytest.mark.parametrize("text", PASTED)
def test_a_pasted_text_is_recognised(text: str) -> None:
    advice = explain(text)
    assert advice.answers[0].key == PASTED[text]
    assert all(cause.text and cause.fix for cause in advice.answers[0].causes)


def test_every_entry_of_the_table_is_recognised_in_some_paste() -> None:
    entries = {entry.key for entry in ENTRIES}
    rare = {"package-not-installed", "permission-denied", "function-not-implemented", "log-proprietary"}
    assert entries == set(PASTED.values()) | rare
    assert len(entries) == len(ENTRIES)


def test_the_table_names_only_what_there_is() -> None:
    keys = {entry.key for entry in ENTRIES}
    rules = set(FIXES) | {"builtin", "module-missing", "unknown-parameter"}
    for entry in ENTRIES:
        assert set(entry.explains) <= keys
        assert entry.causes
        for pattern in entry.patterns:
            re.compile(pattern)
        for cause in entry.causes:
            assert set(cause.rules) <= rules, entry.key


def test_the_kernel_s_line_explains_the_tool_s_words() -> None:
    advice = explain(
        "[   3.1] wl: loading out-of-tree module taints kernel.\n"
        "[   3.2] wl: disagrees about version of symbol module_layout\n"
        "insmod: ERROR: could not insert module wl.ko: Invalid module format\n"
    )
    assert [answer.key for answer in advice.answers] == ["log-disagrees", "log-out-of-tree"]
    assert advice.answers[0].also == ("Invalid module format (insmod), Exec format error (modprobe)",)
    assert advice.answers[0].about["module"] == ("wl",)
    assert advice.answers[1].harmless


def test_all_names_of_a_log_are_collected_once() -> None:
    log = "\n".join(f"[  1.{n}] x: Unknown symbol sym_{n % 3} (err -2)" for n in range(9))
    assert explain(log).answers[0].about == {"module": ("x",), "symbol": ("sym_0", "sym_1", "sym_2")}


def test_names_of_the_text_stand_in_the_commands() -> None:
    answer = explain("insmod: ERROR: could not insert module ./dir/x.ko: Invalid module format").answers[0]
    assert "modinfo -F vermagic ./dir/x.ko" in answer.causes[0].tell


def test_a_version_magic_line_is_taken_apart_without_any_kernel() -> None:
    answer = explain("x: version magic '6.1.0 SMP preempt ' should be '6.2.0 SMP '").answers[0]
    assert answer.here == (
        "the two differ in: its release 6.1.0, the kernel's release 6.2.0, the module has 'preempt'",
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [("all is well", "dmesg"), ("Oops: 0002 [#1] SMP", "kobox oops"), ("Tainted: G   OE", "kobox taint")],
)
def test_an_unknown_text_is_said_to_be_unknown_with_a_hint(text: str, hint: str) -> None:
    advice = explain(text)
    assert advice.answers == ()
    assert hint in advice.hint
    assert "not known" in advice_lines(advice)[0]


def test_an_error_number_that_only_modules_give_is_put_down_to_the_module() -> None:
    answer = explain("foo: init returned -71").answers[0]
    assert (answer.key, answer.title) == ("errno-EPROTO", "EPROTO")


def test_a_verdict_singles_the_cause_out(image: Image) -> None:
    verdict = session(image).load(subject(fitting("x", vermagic="nonsense")))
    text = "could not insert module x.ko: Invalid module format"
    advice = advise(matches(text), text, [verdict])
    cause = advice.answers[0].causes[0]
    assert cause.rules == ("vermagic",)
    assert f"'nonsense' instead of '{VERMAGIC.strip()}'" in cause.proven[0]
    lines = advice_lines(advice)
    assert "  cause found:" in lines
    assert not any("another processor" in line for line in lines)


def test_symbols_of_a_text_are_looked_up_in_the_kernel(image: Image, tmp_path: Path) -> None:
    fitting("giver").export("given", crc=9).write(tmp_path / "giver.ko")
    host = session(image, root=tmp_path).host
    text = "\n".join(f"x: Unknown symbol {name} (err -2)" for name in ("for_gpl", "given", "linux_banner", "plan"))
    answer = advise(matches(text), text, lookup=Kernels([host])).answers[0]
    assert [line.partition(f" in {RELEASE}: ")[2].partition(",")[0] for line in answer.here[:4]] == [
        "exported by the kernel to GPL modules only", "exported by the module giver", "in the kernel",
        "not there; there is plain",
    ]  # fmt: skip
    assert len([cause for cause in answer.causes if cause.proven]) == 3


def test_a_module_that_the_text_names_is_judged_where_it_lies(image: Image, tmp_path: Path) -> None:
    using("broken", "nowhere").write(tmp_path / "broken.ko")
    host = session(image, root=tmp_path).host
    matched = matches("modprobe: ERROR: could not insert 'broken': Invalid argument")
    (verdict,) = judge_named(matched, [host])
    assert [reason.rule for reason in verdict.reasons] == ["symbol-missing"]
    assert judge_named(matches("Module gone not found"), [host]) == []
    lookup = Kernels([host]).facts({"module": ("brokn",)})
    assert "there is broken" in lookup[0].text


def test_the_answer_as_json_is_what_the_schema_says(image: Image) -> None:
    verdict = session(image).load(subject(using("x", "nowhere", vermagic="no")))
    for text in PASTED:
        assert problems(advice_json(advise(matches(text), text, [verdict])), "advice") == []
    assert problems(advice_json(explain("what?")), "advice") == []


def test_a_note_of_a_verdict_explains_a_harmless_line(image: Image) -> None:
    verdict = session(image).load(subject(fitting("x")))
    text = "[ 1.0] x: module verification failed: signature and/or required key missing - tainting kernel"
    (answer,) = advise(matches(text), text, [verdict]).answers
    assert [bool(cause.proven) for cause in answer.causes] == [True, False]

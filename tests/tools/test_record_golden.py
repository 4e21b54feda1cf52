"""The recorder without a machine: what goes in, what comes out, and that its first process compiles."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tools.record_golden import cpio, script

from needs import need_program
from tools import record_golden


def case(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "x", "group": "basic", "watch": ["hello"], "boot_args": "", "steps": list(steps)} | more


def finit(**more: Any) -> dict[str, Any]:
    return {"action": "finit_module", "args": {"file": "ko/hello.ko", "params": "a=1", "flags": 0}} | more


def line(*fields: str) -> str:
    return "\t".join(field.encode("latin-1").hex() or "-" for field in fields)


def said(*words: str) -> list[list[str]]:
    return [word.split(" ") for word in words]


def hexed(data: str | bytes) -> str:
    return (data.encode("latin-1") if isinstance(data, str) else data).hex() or "-"


def test_a_case_becomes_a_line_for_each_watch_and_step() -> None:
    background = {"action": "bg", "args": {"slot": 1, "step": {"action": "delete_module", "name": "x", "flags": []}}}
    steps = [
        finit(),
        {"action": "write", "args": {"path": "/p", "data": ""}},
        {"action": "lseek", "args": {"slot": 0, "offset": 0, "whence": 0}},
        background,
    ]
    assert script(case(*steps)).splitlines() == [
        line("watch", "/sys/module/hello"),
        line("finit_module", "/ko/ko/hello.ko", "a=1", "0"),
        line("write", "/p", "", "0"),
        line("lseek", "0", "0", "0"),
        line("bg", "1", "delete_module", "x", "0"),
    ]


def test_an_image_s_module_has_its_own_folder() -> None:
    step = {"action": "finit_module", "args": {"file": "image:crc8.ko", "params": "", "flags": 4}}
    assert line("/ko/image/crc8.ko") in script(case(step))


def test_the_archive_is_one_that_cpio_reads(tmp_path: Path) -> None:
    need_program("cpio")
    data = cpio({"bin": None, "bin/init": b"#!" * 5, "case": b""})
    listed = subprocess.run(["cpio", "-itv"], input=data, capture_output=True, check=True, cwd=tmp_path).stdout
    lines = listed.decode().splitlines()
    assert [entry.split()[-1] for entry in lines] == ["bin", "bin/init", "case"]
    assert lines[0].startswith("drwxr-xr-x")
    assert lines[1].split()[4] == "10"


def answers(*facts: str, action: str = "finit_module") -> dict[str, Any]:
    found = record_golden._answers(action, said("tainted_before 0", *facts, "tainted_after 12288", "end"))
    assert (found["tainted_before"], found["tainted_after"]) == (0, 12288)
    return found


def test_a_successful_load_has_the_whole_tree() -> None:
    escaped = "6,120,99,-;hello: caf\\xc3\\xa9\n SUBSYSTEM=x"
    found = answers(
        "answer 0 0 0",
        f"uevent {hexed('add@/m' + chr(0) + 'ACTION=add' + chr(0) + 'SEQNUM=7' + chr(0))}",
        f"modules {hexed('hello 16384 0 - Live 0xffffffffc0000000 (OE)' + chr(10))}",
        f"sysfs {hexed('/sys/module/hello')} dir 755 -",
        f"sysfs {hexed('/sys/module/hello/sections/.text')} file 400 {hexed('0xffffffffc0000000' + chr(10))}",
        f"sysfs {hexed('/sys/module/hello/notes/x')} file 444 0001",
        f"sysfs {hexed('/sys/module/hello/uevent')} file 200",
        f"sysfs {hexed('/sys/module/hello/odd')} file 644 !1",
        f"sysfs {hexed('/sys/module/hello/holders/y')} link 777 {hexed('../../y')}",
        f"kmsg {hexed(escaped)}",
        f"kmsg {hexed('28,121,99,c;more')}",
    )
    assert (found["ret"], found["errno"], found["errno_num"]) == (0, "OK", 0)
    assert found["uevents"] == [["add@/m", "ACTION=add"]]
    assert found["proc_modules"] == ["hello 16384 0 - Live 0xADDR (OE)"]
    assert found["sysfs_kind"] == "full"
    assert found["sysfs"] == {
        "/sys/module/hello": {"mode": "0755", "type": "dir"},
        "/sys/module/hello/sections/.text": {"mode": "0400", "type": "file", "content": "0xADDR\n"},
        "/sys/module/hello/notes/x": {"mode": "0444", "type": "file", "content_hex": "0001"},
        "/sys/module/hello/uevent": {"mode": "0200", "type": "file"},
        "/sys/module/hello/odd": {"mode": "0644", "type": "file", "read_errno": 1},
        "/sys/module/hello/holders/y": {"type": "link", "target": "../../y"},
    }
    assert found["dmesg"] == [
        {"level": 6, "text": "hello: cafÃ©"},
        {"level": 4, "text": "more", "facility": 3, "cont": 1},
    ]


def test_anything_else_has_what_changed() -> None:
    found = answers(
        "answer -1 16 0",
        f"before {hexed('/a')} dir 755 -",
        f"before {hexed('/a/x')} file 444 {hexed('1')}",
        f"before {hexed('/b')} file 444 {hexed('2')}",
        f"sysfs {hexed('/b')} file 444 {hexed('3')}",
        action="delete_module",
    )
    assert (found["ret"], found["errno"]) == (-1, "EBUSY")
    assert found["sysfs"] == {"/b": {"mode": "0444", "type": "file", "content": "3"}}
    assert found["sysfs_removed_roots"] == ["/a"]


@pytest.mark.parametrize(
    ("facts", "key", "value"),
    [
        (("killed 9",), "killed_by_signal", 9),
        (("hung",), "hung", True),
        (("answer -1 13 1",), "ret", -2),
        (("answer -5000 0 0",), "ret", -5000),
        (("locked /proc/modules",), "modules_locked", True),
        (("answer 5 0 0", f"output {hexed('text' + chr(10))}"), "output", "text\n"),
    ],
)
def test_the_ways_a_call_can_end(facts: tuple[str, ...], key: str, value: object) -> None:
    assert answers(*facts)[key] == value


def test_a_machine_that_died_leaves_its_last_words() -> None:
    facts = said("step 1", "tainted_before 0")
    console = ["[    1.5] hello", "[    2.0] BUG: bad 0xffffffff81000000", "[    2.1] Kernel panic - not syncing: x"]
    (step,) = record_golden._steps(case(finit(), finit()), facts, console)
    assert step["guest_died"]
    assert [entry["text"] for entry in step["dmesg"]] == ["hello", "BUG: bad 0xADDR", "Kernel panic - not syncing: x"]


def test_a_machine_that_only_stopped_is_hung() -> None:
    (step,) = record_golden._steps(case(finit()), said("step 1"), ["booted"])
    assert step["guest_hung"]
    assert not step["guest_died"]


def test_the_first_process_compiles_without_a_warning(tmp_path: Path) -> None:
    need_program("gcc")
    source = Path(record_golden.__file__).with_name("golden_init.c")
    command = ["gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "init", source]
    assert subprocess.run(command, capture_output=True, check=False).stderr == b""


def test_a_root_without_kernel_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need_program("qemu-system-x86_64", "gcc")
    (tmp_path / "golden.json").write_text("[]")
    assert record_golden.main([str(tmp_path), "--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "has no vmlinuz" in capsys.readouterr().err

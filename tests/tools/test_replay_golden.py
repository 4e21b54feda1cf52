"""The replayer against a kernel that plays a recording back: it agrees with itself, and sees every change."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tests.tools.playback import Playback
from tools.golden_compare import normal_log, normal_text, shorten_traces, tree_delta
from tools.golden_files import CaseFiles, Unavailable
from tools.golden_kernel import Entry, Record, delete_flags, errno_name

from tools import replay_golden

HELLO = "/sys/module/hello"


def step(action: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    plain = {
        "action": action,
        "args": args,
        "ret": 0,
        "errno": "OK",
        "errno_num": 0,
        "dmesg": [],
        "proc_modules": [],
        "sysfs": {},
        "sysfs_kind": "delta",
        "tainted_before": 12288,
        "tainted_after": 12288,
    }
    return plain | more


def recording() -> dict[str, Any]:
    """A load, a look, a refused write, an unload: one of everything that is compared."""
    line = "hello 16384 0 - Live 0xADDR (OE)"
    tree = {
        HELLO: {"type": "dir", "mode": "0755"},
        f"{HELLO}/refcnt": {"type": "file", "mode": "0444", "content": "0\n"},
        f"{HELLO}/notes/.note": {"type": "file", "mode": "0444", "content_hex": "0004"},
        f"{HELLO}/holders/user": {"type": "link", "target": "../../user"},
        f"{HELLO}/parameters/odd": {"type": "file", "mode": "0644", "read_errno": 1},
    }
    log = [{"level": 4, "text": "hello: loading"}, {"level": 6, "text": "hello: init"}]
    return {
        "id": "hello",
        "group": "basic",
        "desc": "",
        "stable": True,
        "kernel_crash": False,
        "boot_args": "",
        "watch": ["hello"],
        "steps": [
            step(
                "finit_module",
                {"file": "ko/hello.ko", "params": "", "flags": 0},
                tainted_before=0,
                dmesg=log,
                uevents=[["add@/module/hello", "ACTION=add", "DEVPATH=/module/hello"]],
                proc_modules=[line],
                sysfs=tree,
                sysfs_kind="full",
            ),
            step("read", {"path": "/proc/modules"}, ret=45, output=line + "\n", proc_modules=[line]),
            step("tree", {"path": "/sys/kernel/x"}, tree={"/sys/kernel/x": {"type": "dir"}}, proc_modules=[line]),
            step("kallsyms", {"module": "hello"}, kallsyms=["ADDR t init [hello]"], proc_modules=[line]),
            step(
                "write",
                {"path": f"{HELLO}/refcnt", "data": "1"},
                ret=-2,
                errno="EACCES",
                errno_num=13,
                open_failed=True,
                proc_modules=[line],
                sysfs={f"{HELLO}/refcnt": {"type": "file", "mode": "0444", "content": "1\n"}},
            ),
            step(
                "delete_module",
                {"name": "hello", "flags": ["O_NONBLOCK"]},
                dmesg=[{"level": 6, "text": "hello: exit"}],
                sysfs_removed_roots=[HELLO],
            ),
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ko").mkdir()
    (tmp_path / "ko/hello.ko").write_bytes(b"not looked at")
    return tmp_path


def replay(recorded: dict[str, Any], played: dict[str, Any], folder: Path) -> replay_golden.Outcome:
    return replay_golden.run_case(recorded, lambda boot_args: Playback(played), folder, None)


def test_a_recording_played_back_agrees_with_itself(folder: Path) -> None:
    outcome = replay(recording(), recording(), folder)
    assert (outcome.differences, outcome.broken, outcome.waits) == ([], "", "")
    assert outcome.agrees


@pytest.mark.parametrize(
    ("number", "change", "field"),
    [
        (1, {"errno_num": 22, "errno": "EINVAL", "ret": -1}, "errno"),
        (1, {"ret": 3}, "ret"),
        (1, {"dmesg": [{"level": 4, "text": "hello: loading"}, {"level": 5, "text": "hello: init"}]}, "dmesg"),
        (1, {"dmesg": []}, "dmesg"),
        (1, {"uevents": []}, "uevents"),
        (1, {"proc_modules": ["hello 16384 1 - Live 0xADDR (OE)"]}, "proc_modules"),
        (1, {"tainted_after": 4096}, "tainted_after"),
        (2, {"tainted_before": 0}, "tainted_before"),
        (1, {"killed_by_signal": 9}, "killed_by_signal"),
        (1, {"hung": True}, "hung"),
        (1, {"guest_died": True}, "kernel died"),
        (2, {"output": "nothing"}, "output"),
        (3, {"tree": {}}, "tree /sys/kernel/x"),
        (4, {"kallsyms": []}, "kallsyms"),
        (5, {"open_failed": False}, "ret"),
        (5, {"sysfs": {}}, f"sysfs {HELLO}/refcnt"),
        (6, {"sysfs_removed_roots": [f"{HELLO}/refcnt"]}, "sysfs removed"),
    ],
)
def test_any_other_answer_is_a_difference(number: int, change: dict[str, Any], field: str, folder: Path) -> None:
    played = recording()
    played["steps"][number - 1] |= change
    outcome = replay(recording(), played, folder)
    assert field in [difference.field for difference in outcome.differences if difference.step == number]


@pytest.mark.parametrize(
    "changed",
    [
        {"type": "dir", "mode": "0755"},
        {"type": "file", "mode": "0644", "content": "0\n"},
        {"type": "file", "mode": "0444", "content": "1\n"},
        {"type": "file", "mode": "0444", "read_errno": 5},
    ],
)
def test_type_mode_content_and_errno_of_a_sysfs_file_count(changed: dict[str, Any], folder: Path) -> None:
    played = recording()
    played["steps"][0]["sysfs"][f"{HELLO}/refcnt"] = changed
    outcome = replay(recording(), played, folder)
    assert f"sysfs {HELLO}/refcnt" in [difference.field for difference in outcome.differences]


def test_a_crash_of_the_real_kernel_may_be_a_refusal_here(folder: Path) -> None:
    recorded = recording()
    recorded["kernel_crash"] = True
    recorded["steps"][0] |= {"killed_by_signal": 9, "ret": None, "errno": None, "errno_num": None}
    refused = recording()
    refused["steps"][0] |= {"ret": -1, "errno": "ENOEXEC", "errno_num": 8}
    assert replay(recorded, refused, folder).agrees
    assert not replay(recorded, recording(), folder).agrees
    recorded["group"] = "oops"
    assert not replay(recorded, refused, folder).agrees


def test_a_crash_agrees_only_with_one_that_begins_and_ends_alike(folder: Path) -> None:
    recorded = recording() | {"kernel_crash": True}
    null = {"level": 1, "text": "BUG: kernel NULL pointer dereference, address: 0000000000000010"}
    gone = {"ret": None, "errno": None, "errno_num": None, "killed_by_signal": 9, "dmesg": [null]}
    recorded["steps"][0] |= gone
    assert replay(recorded, copy.deepcopy(recorded), folder).agrees
    for change in ({"killed_by_signal": 11}, {"dmesg": [{"level": 4, "text": "general protection fault, maybe"}]}):
        played = copy.deepcopy(recorded)
        played["steps"][0] |= change
        assert not replay(recorded, played, folder).agrees


def test_where_two_recordings_differ_only_the_log_is_not_compared(folder: Path) -> None:
    recorded = recording() | {"stable": False}
    other_log, other_taint = recording(), recording()
    other_log["steps"][0]["dmesg"] = []
    other_taint["steps"][0]["tainted_after"] = 1
    assert replay(recorded, other_log, folder).agrees
    assert not replay(recorded, other_taint, folder).agrees


def test_what_breaks_in_the_kernel_is_an_outcome_and_names_its_place(folder: Path) -> None:
    played = recording()
    played["steps"] = []
    outcome = replay(recording(), played, folder)
    assert outcome.broken.startswith("IndexError")
    assert "playback.py" in outcome.broken


def test_cases_of_the_tools_in_a_shell_wait(folder: Path) -> None:
    with_shell = recording()
    with_shell["steps"].append(step("sh", {"cmd": "true"}))
    results = [replay(case, case, folder) for case in (with_shell, recording())]
    assert replay_golden.summary(results) == "1 of 1 agree; 1 wait: 1 for a shell"


def test_what_a_shell_prints_is_compared_where_the_kernel_asks_for_modules(folder: Path) -> None:
    with_shell = recording() | {"group": "reqmod"}
    with_shell["steps"].append(step("sh", {"cmd": "echo rc=$?"}, output="rc=0\n"))
    assert replay(with_shell, with_shell, folder).agrees
    other = recording() | {"group": "reqmod"}
    other["steps"].append(step("sh", {"cmd": "echo rc=$?"}, output="rc=1\n"))
    assert [difference.field for difference in replay(with_shell, other, folder).differences] == ["output"]


def test_only_selects_by_part_of_the_name_or_by_group(folder: Path) -> None:
    cases = [recording(), recording() | {"id": "other", "group": "hellos"}]
    (folder / "golden.json").write_text(json.dumps(cases))
    assert [case["id"] for case in replay_golden.load_cases(folder, "ell")] == ["hello"]
    assert [case["id"] for case in replay_golden.load_cases(folder, "basic|hellos")] == ["hello", "other"]


def test_a_missing_directory_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_golden.main([str(tmp_path / "none")]) == 2
    assert "golden.json" in capsys.readouterr().err


def test_the_help_names_every_normaliser(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        replay_golden.main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("addresses", "process ids", "load order", "dump values", "call trace"))


def test_addresses_and_process_ids_are_normalised_and_nothing_like_them() -> None:
    assert normal_text("at 0xffffffffc0123456 of ffff888001234567") == "at 0xADDR of ADDR"
    assert normal_text("CPU: 0 PID: 123 Comm: kload") == "CPU: 0 PID: N Comm: kload"
    assert normal_text("0x00beef 123 deadbeef RAX: 0000000000000016") == "0x00beef 123 deadbeef RAX: 0000000000000016"


OOPS = [
    "BUG: kernel NULL pointer dereference, address: 0000000000000000",
    "PGD ADDR P4D ADDR PUD ADDR PMD 0 ",
    "Hardware name: a board",
    "RIP: 0010:i+0x18/0x1000 [oops]",
    "Code: 0f 05 <48> 3d",
    "RSP: 0018:ADDR EFLAGS: 00000246",
    "RAX: 0000000000000016 RBX: ADDR RCX: ADDR",
    "Call Trace:",
    " <TASK>",
    " do_one_initcall+0x59/0x220",
    " ? left_over+0x1/0x2",
    " do_init_module+0x4a/0x1f0",
    "RIP: 0033:0x43fa79",
    "RSP: 002b:ADDR EFLAGS: 00000246 ORIG_RAX: 0000000000000139",
    " </TASK>",
    "Modules linked in: oops(OE+)",
]


def texts(lines: list[str], with_traces: bool) -> list[str]:
    return [text for _, text in normal_log((Record(4, line) for line in lines), with_traces)]


def test_an_oops_keeps_what_happened_where_and_loses_the_values_of_its_dumps() -> None:
    kept = [*OOPS[:9], *OOPS[14:]]
    kept[1], kept[4] = "PGD WALK", "Code: BYTES"
    kept[5:7] = ["RSP: 0018:ADDR EFLAGS: VALUE", "RAX: VALUE RBX: VALUE RCX: VALUE"]
    assert texts(OOPS, False) == kept
    assert texts(OOPS, True) == [*kept[:9], OOPS[9], OOPS[11], *kept[9:]]


def test_a_trace_may_lack_the_kernel_s_own_loader_but_not_differ() -> None:
    entry = " entry_SYSCALL_64_after_hwframe+0x6e/0xd8"
    recorded = [(4, text) for text in texts(OOPS, True)]
    where = next(number for number, (_, text) in enumerate(recorded) if "do_init_module" in text)
    recorded.insert(where + 1, (4, entry))
    shorter = [line for line in recorded if "do_init_module" not in line[1]]
    other = [(4, text.replace("do_one_initcall", "do_another")) for _, text in shorter]
    open_ended = [line for line in shorter if line[1] != entry]
    assert shorten_traces(recorded, shorter) == shorter
    assert shorten_traces(recorded, other) == recorded
    assert shorten_traces(recorded, open_ended) == recorded
    assert shorten_traces(recorded, recorded) == recorded


def test_a_delta_has_what_is_new_or_changed_and_the_topmost_names_gone() -> None:
    before = {"/a": Entry("dir"), "/a/x": Entry("file", content=b"1"), "/b": Entry("dir"), "/b/y": Entry("file")}
    after = {"/a": Entry("dir"), "/a/x": Entry("file", content=b"2"), "/c": Entry("dir")}
    assert tree_delta(before, after) == ({"/a/x": after["/a/x"], "/c": after["/c"]}, ["/b"])


def test_flags_and_errno_have_the_recording_s_names() -> None:
    assert delete_flags(["O_NONBLOCK", "O_TRUNC"]) == 0o5000
    assert delete_flags(["0x10"]) == 16
    assert [errno_name(number) for number in (22, 95, 512, 517, 4095)] == [
        "EINVAL",
        "ENOTSUP",
        "ERESTARTSYS",
        "EPROBE_DEFER",
        "E4095",
    ]


def test_a_file_nobody_has_says_so(folder: Path) -> None:
    files = CaseFiles(folder, None, {"ko/made.ko": "image:x.ko: turned upside down"})
    assert files("ko/hello.ko") == b"not looked at"
    for name in ("ko/none.ko", "image:x.ko", "ko/made.ko"):
        with pytest.raises(Unavailable):
            files(name)


def test_the_recording_itself_is_never_changed(folder: Path) -> None:
    case = recording()
    kept = copy.deepcopy(case)
    replay(case, recording(), folder)
    assert case == kept

"""Tracing on booted images: the kernel's own ftrace, driven by kobox, on the modules of two distributions."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_headers import make_modules

import kobox
from example_files import example_file
from headers import kernel_headers
from kobox.box import Kernel
from kobox.cli import main
from kobox.debug.tracing import Call
from kobox.debug.tracing.text import render
from kobox.errors import Errno, UsageError
from kobox.image import Image
from kobox.kernel.tasks import KernelDead, TaskDied
from kobox.ko import read_module
from kobox.runner import Finder
from needs import lacking
from paths import ROOT
from schemas import problems_of_command

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.image

TRACING = "/sys/kernel/tracing/"


def insert(kernel: Kernel, name: str, **parameters: object) -> Path:
    """Load a module of the distribution after what it needs; returns its file."""
    finder = Finder(Path("/nowhere"), [], kernel.modules_folder)
    path = finder.find(name)
    for needed in finder.in_order(read_module(path)):
        kernel.insmod(needed)
    kernel.insmod(path, **parameters)
    return path


def functions_of(path: Path) -> set[str]:
    """Names of the functions in a module's own symbol table."""
    return {symbol.name for symbol in read_module(path).elf.symbols if symbol.type == 2}


def check_nesting(calls: tuple[Call, ...]) -> None:
    """Every call lies within its parent in time, one level deeper, in the same task, after it in the list."""
    for index, call in enumerate(calls):
        if call.parent is None:
            assert call.depth == 0
            continue
        parent = calls[call.parent]
        assert call.parent < index
        assert call.depth == parent.depth + 1
        assert call.pid == parent.pid
        assert call.caller == parent.place
        assert call.duration is not None
        assert parent.duration is not None
        assert parent.start <= call.start
        assert call.start + call.duration <= parent.start + parent.duration


def test_the_graph_of_a_load_agrees_with_the_modules_symbols(linux: Kernel) -> None:
    with linux.trace(modules=["bonding"]) as trace:
        path = insert(linux, "bonding")
        linux.rmmod("bonding")
    calls = trace.calls
    own = functions_of(path)
    assert {call.function for call in calls if call.module == "bonding"} <= own
    assert {"bonding_init", "bond_create", "bond_netlink_fini"} <= {call.function for call in calls}
    imported = {symbol.name for symbol in read_module(path).elf.symbols if symbol.is_undefined}
    for call in calls:
        assert call.module in ("", "bonding")
        assert call.place.offset in (0, 4), "a call begins at the function's start, or behind its landing mark"
        if not call.module:
            assert call.function in linux.guest.symbols
            assert call.function in imported or linux.guest.symbols[call.function] in {
                linux.guest.symbols.get(name) for name in imported
            }
            assert call.caller is not None
            assert call.caller.module == "bonding", "the kernel's functions stand where the module called them"
    check_nesting(calls)
    assert trace.result.lost == 0


def test_durations_measure_work_not_the_host(linux: Kernel) -> None:
    """The same calls do the same work, and tracing more does not make them longer. (An interrupt may fall into one.)"""
    alone, among_others = traced_parsing(linux, False), traced_parsing(linux, True)
    assert len(alone) == len(among_others) == 4
    assert sum(abs(one - other) <= one // 10 for one, other in zip(alone, among_others, strict=True)) >= 3


def traced_parsing(kernel: Kernel, callees: bool) -> list[int]:
    """Durations of the four texts that bonding parses when it starts."""
    kernel.reset()
    with kernel.trace(modules=["bonding"], callees=callees) as trace:
        insert(kernel, "bonding")
    return [call.duration or 0 for call in trace.calls_of("bond_opt_parse")]


def test_waiting_counts_as_virtual_time(linux: Kernel) -> None:
    with linux.trace("msleep") as trace:
        linux.sleep(0.5)
    (call,) = trace.calls_of("msleep")
    assert call.duration is not None
    assert 400_000_000 <= call.duration < 700_000_000


def test_callers_call_what_they_are_said_to_call(linux: Kernel) -> None:
    with linux.trace("*", graph=False) as trace:
        linux.read("/proc/version")
    addresses = linux.guest.symbols
    direct = 0
    for call in trace.calls:
        assert call.caller is not None
        if call.module or call.caller.module or call.caller.name not in addresses:
            continue
        behind = addresses[call.caller.name] + call.caller.offset
        code = linux.guest.read(behind - 5, 5)
        if code[0] != 0xE8:
            continue  # through a pointer
        target = behind + int.from_bytes(code[1:], "little", signed=True)
        if call.address - target in (0, 4):
            direct += 1
        else:
            assert goes_on(linux, target), f"{call.caller} calls {target:#x}, not {call.place}"
    assert direct > 50


def goes_on(kernel: Kernel, target: int) -> bool:
    """Whether the function at ``target`` is a thunk, or ends in a jump to another one."""
    found = kernel.guest.symbols.at(target)
    assert found is not None
    assert found.offset == 0
    if "__x86_indirect_thunk" in found.name:
        return True
    return re.search(rb"[\xe9\xeb\xff]", kernel.guest.read(target, found.size)) is not None


def test_functions_are_chosen_by_glob_also_in_modules_that_come_later(linux: Kernel) -> None:
    with linux.trace("bond_opt_*", "proc_mkdir", graph=False) as trace:
        insert(linux, "bonding")
    names = {call.function for call in trace.calls}
    assert names == {"bond_opt_get", "bond_opt_parse", "proc_mkdir"}
    assert {str(call.caller) for call in trace.calls_of("proc_mkdir")} >= {"bond_create_proc_dir [bonding]"}


def test_a_glob_that_matches_nothing_is_named(linux: Kernel) -> None:
    with linux.trace("no_such_function", "vfs_open", events=["no:such"], probes=["no_such_probe"]) as trace:
        linux.read("/proc/version")
    assert trace.result.missing == (
        "function no_such_function: none of that name can be traced",
        "event no:such: there is none",
        "probe no_such_probe: no such function",
    )
    assert trace.called("vfs_open")


def test_probes_show_arguments_by_name_and_results(linux: Kernel) -> None:
    with linux.trace(calls=False, probes=["register_filesystem", "ext4:ext4_init_sysfs"]) as trace:
        insert(linux, "ext4")
        systems = [
            linux.guest.read_cstr(linux.guest.read_uint(one.fields["fs"])) for one in trace.events if "fs" in one.fields
        ]
    assert trace.calls == ()
    assert systems[0] == b"ext3"
    assert b"ext4" in systems
    results = {event.name: event.fields["ret"] for event in trace.events if "ret" in event.fields}
    assert results == {"register_filesystem_ret": 0, "ext4_init_sysfs_ret": 0}
    assert "fs=0x" in next(event.text for event in trace.events if event.name == "register_filesystem")


def test_texts_are_shown_as_texts(linux: Kernel) -> None:
    with linux.trace(calls=False, probes=["proc_mkdir"]) as trace:
        insert(linux, "bonding")
    (event,) = [event for event in trace.events if event.name == "proc_mkdir"]
    assert event.fields["name"] == "bonding"
    assert 'name="bonding"' in event.text


def test_tracepoints_are_recorded_with_their_fields_and_the_kernels_text(linux: Kernel) -> None:
    with linux.trace(calls=False, events=["module:module_[pg]*", "jbd2:*"]) as trace:
        insert(linux, "ext4")
        linux.rmmod("ext4")
    assert {event.system for event in trace.events} == {"module"}
    for event in trace.events:
        assert event.text.startswith(f"{event.fields['name']} call_site=")
        assert event.text.endswith(f"refcnt={event.fields['refcnt']}")
    assert {"ext4", "jbd2"} <= {event.fields["name"] for event in trace.events}
    assert trace.result.missing == (), "events of a module exist once it is there"


def test_nothing_is_left_after_a_trace(linux: Kernel) -> None:
    insert(linux, "bonding")
    before = text_of(linux)
    with linux.trace("vfs_*", modules=[], probes=["vfs_open"], events=["sched:sched_switch"]):
        linux.read("/proc/version")
        assert text_of(linux) != before
    assert text_of(linux) == before
    assert linux.read(TRACING + "current_tracer") == b"nop\n"
    assert linux.read(TRACING + "kprobe_events") == b""
    assert linux.read(TRACING + "enabled_functions") == b""
    assert [entry.name for entry in linux.ls(TRACING + "instances")] == []
    assert linux.guest.machine.clock.on_wait is None


def text_of(kernel: Kernel) -> bytes:
    start, end = kernel.guest.symbol("_stext"), kernel.guest.symbol("_etext")
    return kernel.guest.read(start, end - start)


def test_a_reset_in_the_middle_takes_the_trace_with_it(linux: Kernel) -> None:
    before = text_of(linux)
    with linux.trace("vfs_*") as trace:
        linux.read("/proc/version")
        seen = trace.calls
        linux.reset()
        assert text_of(linux) == before
    assert seen
    assert trace.calls == seen
    assert linux.read(TRACING + "current_tracer") == b"nop\n"
    with linux.trace("vfs_*") as again:
        linux.read("/proc/version")
    assert [call.function for call in again.calls] == [call.function for call in seen]


def test_a_probe_that_the_kernel_refuses_is_named_in_its_words(linux: Kernel) -> None:
    with pytest.raises(UsageError, match="refused the probe"), linux.trace(calls=False, probes=["do_int3"]):
        raise AssertionError("a function that a probe itself needs was probed")
    assert linux.read(TRACING + "kprobe_events") == b""
    with linux.trace(calls=False, probes=["vfs_open"]) as trace:
        linux.read("/proc/version")
    assert trace.events


@pytest.mark.parametrize("graph", [False, True])
def test_after_a_panic_the_trace_is_read_from_memory(linux: Kernel, graph: bool) -> None:
    with linux.trace("*sysrq*", "vfs_open", graph=graph) as trace:
        linux.read("/proc/version")
        early = trace.calls
        with pytest.raises(KernelDead):
            linux.write("/proc/sysrq-trigger", "c")
    assert [call.function for call in early] == ["vfs_open"]
    names = [call.function for call in trace.calls]
    assert names[0] == "vfs_open"
    assert names[-1] == "sysrq_handle_crash"
    assert "__handle_sysrq" in names
    assert trace.calls[-1].comm == "insmod"
    linux.reset()
    assert linux.read(TRACING + "current_tracer") == b"nop\n"


def test_one_trace_at_a_time(linux: Kernel, tmp_path: Path) -> None:
    with linux.trace("vfs_open"):
        with pytest.raises(UsageError, match="on already"), linux.trace("vfs_open"):
            raise AssertionError("two traces")
        with pytest.raises(UsageError, match="no checkpoint while a trace is on"):
            linux.checkpoint()
        with pytest.raises(UsageError, match="no saving while a trace is on"):
            linux.save(tmp_path)


def test_a_tracer_in_use_is_left_alone(linux: Kernel) -> None:
    linux.write(TRACING + "current_tracer", "function_graph")
    with pytest.raises(UsageError, match="in use"), linux.trace("vfs_open"):
        raise AssertionError("traced")
    assert linux.read(TRACING + "current_tracer") == b"function_graph\n"


@pytest.mark.parametrize("graph", [False, True])
def test_the_text_is_the_kernels_own(linux: Kernel, graph: bool) -> None:
    """Every line that the kernel's ``trace`` file has, in the same order, names of tasks apart."""
    with linux.trace("vfs_*", "path_openat", "proc_*", graph=graph) as trace:
        linux.read("/proc/version")
        linux.write(TRACING + "tracing_on", "0")
        own = lines_of(linux.read(TRACING + "trace").decode())
        result = trace.result
    shown = lines_of("\n".join(render(result)))
    assert len(own) > 5
    assert shown[: len(own)] == own


def lines_of(text: str) -> list[str]:
    """Without comments and empty lines; a task is its number."""
    return [re.sub(r"^.*-(\d+) ", r"\1 ", line) for line in text.splitlines() if line.strip() and line[0] != "#"]


# -- modules made for 6.1 -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bookworm(debian_root: Path) -> Iterator[Kernel]:
    with kobox.boot(debian_root) as kernel:
        kernel.mark_pristine()
        yield kernel


@pytest.fixture
def pristine(bookworm: Kernel) -> Kernel:
    bookworm.reset()
    return bookworm


def test_a_module_whose_init_crashes_shows_how_far_it_came(pristine: Kernel) -> None:
    with pristine.trace(callees=False) as trace, pytest.raises(TaskDied):
        pristine.insmod(example_file(pristine.release, "hostile/bug"))
    (call,) = trace.calls
    assert (call.function, call.module, call.duration) == ("bug_init", "bug", None)
    assert list(render(trace.result))[-2:] == [
        " 0)               |  bug_init [bug]() {",
        "# has not returned: bug_init [bug]",
    ]


def test_ctrl_c_ends_a_trace_without_running_the_guest_on(pristine: Kernel) -> None:
    taken = []

    def load_and_interrupt() -> None:
        pristine.insmod(example_file(pristine.release, "hello"))
        taken.append(pristine.guest.machine.traps_taken)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pristine.trace() as trace:
        load_and_interrupt()
    assert trace.called("hello_init")
    assert taken == [pristine.guest.machine.traps_taken]
    pristine.reset()
    with pristine.trace() as again:
        pristine.insmod(example_file(pristine.release, "hello"))
    assert again.called("hello_init")


def test_a_kernel_that_panics_leaves_its_last_calls(pristine: Kernel) -> None:
    with pristine.trace(events=["signal:*"], probes=["panic"]) as trace, pytest.raises(KernelDead):
        pristine.insmod(example_file(pristine.release, "hostile/recurse"))
    assert trace.calls[0].function == "recurse_init"
    assert trace.calls[-1].function == "deeper"
    assert trace.calls[-1].depth > 10
    assert {call.comm for call in trace.calls} == {"insmod"}
    (panic,) = [event for event in trace.events if event.name == "panic"]
    assert panic.fields["fmt"].startswith("Fatal exception")
    pristine.reset()
    with pristine.trace() as again:
        pristine.insmod(example_file(pristine.release, "hello"))
    assert again.called("hello_init")


def test_the_functions_of_an_init_that_fails_keep_their_names(pristine: Kernel) -> None:
    with pristine.trace() as trace, pytest.raises(Errno):
        pristine.insmod(example_file(pristine.release, "hostile/fail_init"))
    assert str(trace.calls[0].place) == "fail_init_init [fail_init]"
    assert trace.calls[0].duration is not None
    assert {call.function for call in trace.calls} >= {"fail_init_init", "_printk"}


def test_events_of_a_modules_own_come_before_it_goes(pristine: Kernel) -> None:
    with pristine.trace(calls=False, events=["kobox_tracing:*"]) as trace:
        tracing = pristine.insmod(example_file(pristine.release, "tracing"))
        tracing.parameters["drop"] = 125
        pristine.rmmod("tracing")
    heights = [event.fields["centimetres"] for event in trace.events]
    assert heights[0] == 125
    assert heights[-1] == 0
    assert heights == sorted(heights, reverse=True)
    assert trace.events[0].text == "height=125 cm after 0 ms"
    assert trace.result.missing == ()


PRINTS = """
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/module.h>

static int __init prints_init(void)
{
	trace_printk("nothing but a text\\n");
	trace_printk("%s is %d\\n", "seven", 7);
	return 0;
}

static void __exit prints_exit(void)
{
	trace_printk("%u%%\\n", 100);
}

module_init(prints_init);
module_exit(prints_exit);
MODULE_LICENSE("GPL");
"""


def test_trace_printk_stands_among_the_calls(pristine: Kernel, debian_image: Image, tmp_path: Path) -> None:
    headers = kernel_headers(debian_image.release)
    if headers.release != debian_image.release:
        lacking(f"headers of {debian_image.release}")
    (tmp_path / "prints.c").write_text(PRINTS)
    (tmp_path / "Kbuild").write_text("obj-m += prints.o\n")
    make_modules(headers, tmp_path)
    with pristine.trace() as trace:
        pristine.insmod(tmp_path / "prints.ko")
        pristine.rmmod("prints")
    said = [event.text for event in trace.events if event.text.startswith("prints")]
    assert said == ["prints_init: nothing but a text", "prints_init: seven is 7", "prints_exit: 100%"]
    assert any("/* prints_init: seven is 7 */" in line for line in render(trace.result))


def test_a_loader_that_cannot_be_traced_says_so(debian_root: Path) -> None:
    with kobox.boot(debian_root, loader="kernel") as kernel, pytest.raises(UsageError, match="own loader"):
        kernel.trace()


@pytest.fixture(scope="module")
def hello(debian_image: Image) -> str:
    return str(example_file(debian_image.release, "hello"))


def test_the_examples_of_the_guide_pass(pytester: pytest.Pytester, debian_root: Path, hello: str) -> None:
    shutil.copy(hello, pytester.path)
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/trace.md").read_text(), re.DOTALL | re.MULTILINE)
    pytester.makepyfile(example)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--kobox-image", str(debian_root))
    result.assert_outcomes(passed=2)


# -- the command --------------------------------------------------------------------------------------------------


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["trace", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_shows_the_calls_of_a_load(
    kobox_image: str, hello: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command(capsys, "--image", kobox_image, hello, "--", "my_param=7")
    assert (code, err) == (0, "")
    assert out.startswith("# tracer: function_graph\n")
    assert re.search(r"^ 0\)               \|  hello_init \[hello\]\(\) \{$", out, re.MULTILINE)
    assert re.search(r"^ 0\).* us +\|    _printk\(\);$", out, re.MULTILINE)
    assert out.endswith("# hello: loaded\n")


def test_the_command_writes_json_and_chromes_format(
    kobox_image: str, hello: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = command(capsys, "--image", kobox_image, "--json", hello)
    answer = json.loads(out)
    assert code == 0
    assert problems_of_command(answer, "trace") == []
    assert (answer["module"], answer["result"], answer["lost"], answer["missing"]) == ("hello", 0, 0, [])
    assert answer["calls"][0]["function"] == "hello_init"
    chrome = tmp_path / "hello.json"
    code, out, _ = command(capsys, "--image", kobox_image, "--chrome", str(chrome), hello)
    assert code == 0
    rows = json.loads(chrome.read_text())["traceEvents"]
    init = next(row for row in rows if row["name"] == "hello_init")
    assert (init["ph"], init["cat"]) == ("X", "hello")
    assert init["dur"] > 0
    assert init["args"]["address"].startswith("0xffffffff")
    assert [entry.name for entry in tmp_path.iterdir()] == ["hello.json"]


def test_what_does_not_exist_is_one_line_each(kobox_image: str, hello: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = command(capsys, "--image", kobox_image, hello, "--function", "nothing_like_this")
    assert code == 1
    assert err == "kobox trace: function nothing_like_this: none of that name can be traced\n"
    code, _, err = command(capsys, "--image", kobox_image, hello, "--event", "wrong")
    assert (code, err) == (
        2,
        "kobox trace: no event can be called 'wrong'; hint: SYSTEM:NAME, as sched:sched_switch\n",
    )
    code, _, err = command(capsys, "--image", "bare", hello)
    assert code == 3
    assert err.startswith("kobox trace: this kernel has no tracer that can be driven from here; hint:")
    code, _, err = command(capsys, "--image", kobox_image, hello, "--chrome", "/no/such/folder/x.json")
    assert code == 2
    assert "no folder /no/such/folder" in err

"""KUnit for kernels that were built without it: runs the suites of a module, each case in a kernel thread of its own.

Switched on, CONFIG_KUNIT changes ``task_struct`` and ``struct module``, so no ``kunit.ko`` can be built for a kernel
that was built without. Here Python is the core: the loader runs a module's suites where the kernel's own core would
(when the module is live), ``kapi.kunit`` holds the functions that tests call, and all lines go through the kernel's
``printk``. Everything in flight is a generator of guest calls. Follows lib/kunit/{test,try-catch,resource}.c.

Not there: ``current->kunit_test`` (``kunit_get_current_test`` answers NULL in code built for such kernels, so static
stubs and ``kunit_fail_current_test`` do nothing), debugfs, filters.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable, Mapping

from kobox.abi.declare import Declared, ExportTable
from kobox.abi.layout import StructLayout
from kobox.kernel import kunit_text
from kobox.kernel.env import Call, Env, Result, Steps
from kobox.kernel.guest import Guest, errno_of
from kobox.kernel.kunit_layouts import KunitLayouts
from kobox.kernel.natives import Natives

SUCCESS, FAILURE, SKIPPED = range(3)
"""``enum kunit_status``, include/kunit/test.h."""
ASSERTION = 0
"""``enum kunit_assert_type``, include/kunit/assert.h; the other one is an expectation."""
_SPEEDS = {1: "very_slow", 2: "slow"}
"""``enum kunit_speed``, include/kunit/attributes.h."""
_ERR, _INFO = 3, 6
_EINTR, _EFAULT, _ETIMEDOUT = 4, 14, 110
_TAINT_TEST = 18
_TIMEOUT_MS, _WAITS = 300_000, 3
_DESCRIPTION_SIZE = 128
_MESSAGE_AT, _MESSAGE_SIZE = 0x2000, 0x8000
_INDENT = kunit_text.INDENT
_EACH = 8
_TextSteps = Generator[Call, int, str]


class KUnit:
    """The core of one guest. ``layouts`` are of the module whose tests run."""

    layouts: KunitLayouts

    def __init__(
        self,
        guest: Guest,
        tables: Iterable[ExportTable],
        own: Iterable[ExportTable],
        read_layouts: Callable[[bytes, str], Mapping[str, StructLayout]],
    ) -> None:
        self.guest, self.env = guest, Env(guest)
        tables = tuple(tables)
        self.natives = Natives(guest, (*tables, *own), self)
        self.exported: dict[str, Declared] = {
            name: declared for table in tables for declared in table for name in (declared.name, *declared.also)
        }
        """What modules may bind, by name."""
        self._read_layouts = read_layouts
        self._running = False
        self.left_behind = 0
        """Threads of the last module that did not end in time."""
        self._bodies: dict[int, Callable[[], Steps]] = {}
        """By ``struct kunit_try_catch``: what its thread does, where that is this room's own code."""

    def forget(self) -> None:
        """The guest was reset."""
        self.natives.forget()
        self._running = False
        self._bodies.clear()

    # -- suites ---------------------------------------------------------------------------------------------------

    def run_module(self, data: bytes, name: str, suites: bytes) -> Steps:
        """Run the suites whose addresses ``suites`` holds, of a module with this file and name."""
        while self._running:
            yield (self.guest.symbol("msleep"), 1)
        self._running = True
        try:
            self.layouts, self.left_behind = KunitLayouts(self.guest, self._read_layouts(data, name)), 0
            addresses = [address for (address,) in struct.iter_unpack("<Q", suites)]
            yield from self.say("KTAP version 1")
            yield from self.say(f"1..{len(addresses)}")
            for number, suite in enumerate(addresses, 1):
                self.layouts.set(suite, "kunit_suite.suite_init_err", 0)
                yield from self.run_suite(suite, number)
        finally:
            self._running = False

    def run_suite(self, suite: int, number: int = 1) -> Steps:
        """``kunit_run_tests``."""
        layouts = self.layouts
        name = layouts.text(suite, "kunit_suite.name")
        yield from self.env.taint(_TAINT_TEST)
        start = layouts.get(suite, "kunit_suite.suite_init")
        failed = (yield (start, suite)) & 0xFFFF_FFFF if start else 0
        if failed:
            layouts.set(suite, "kunit_suite.suite_init_err", failed)
            said = f"{_INDENT}# failed to initialize ({_signed32(failed)})"  # indented twice, as the kernel has it
            yield from self.say(f"{_INDENT}# {name}: {said}", _ERR)
        else:
            yield from self._run_cases(suite, name)
        status = self.suite_status(suite)
        comment = layouts.text(suite, "kunit_suite.status_comment")
        yield from self.say(_result_line(status, number, name, comment))

    def _run_cases(self, suite: int, name: str) -> Steps:
        layouts, cases = self.layouts, self.cases(suite)
        yield from self.say(f"{_INDENT}KTAP version 1")
        yield from self.say(f"{_INDENT}# Subtest: {name}")
        if layouts.has("kunit_case.module_name") and cases:
            yield from self.say(f"{_INDENT}# module: {layouts.text(cases[0], 'kunit_case.module_name')}")
        yield from self._say_speed(suite, "kunit_suite.attr.speed", f"{_INDENT}# speed")
        yield from self.say(f"{_INDENT}1..{len(cases)}")
        of_cases, of_all = _Counts(), _Counts()
        for number, case in enumerate(cases, 1):
            counts = yield from self._run_case(suite, case, number)
            of_cases.add(layouts.get(case, "kunit_case.status"))
            of_all.merge(counts)
        end = layouts.get(suite, "kunit_suite.suite_exit")
        if end:
            yield (end, suite)
        yield from self._say_counts(of_cases, f"# {name}")
        yield from self._say_counts(of_all, "# Totals")

    def cases(self, suite: int) -> list[int]:
        """Addresses of the suite's ``struct kunit_case``."""
        layouts, found = self.layouts, []
        case = layouts.get(suite, "kunit_suite.test_cases")
        while case and layouts.get(case, "kunit_case.run_case"):
            found.append(case)
            case += layouts.size("kunit_case")
        return found

    def suite_status(self, suite: int) -> int:
        """``kunit_suite_has_succeeded``."""
        if self.layouts.get(suite, "kunit_suite.suite_init_err"):
            return FAILURE
        states = [self.layouts.get(case, "kunit_case.status") for case in self.cases(suite)]
        if FAILURE in states:
            return FAILURE
        return SUCCESS if SUCCESS in states else SKIPPED

    # -- cases ----------------------------------------------------------------------------------------------------

    def _run_case(self, suite: int, case: int, number: int) -> Generator[Call, int, _Counts]:
        """One case, or as many as its parameters make of it; their counts."""
        layouts, env = self.layouts, self.env
        name, counts, left = layouts.text(case, "kunit_case.name"), _Counts(), self.left_behind
        test = yield from env.kmalloc(layouts.size("kunit"))
        self.init_test(test, layouts.get(case, "kunit_case.name"), 0)
        layouts.set(case, "kunit_case.status", SKIPPED)
        generate = layouts.get(case, "kunit_case.generate_params")
        if generate:
            yield from self._run_parameters(suite, case, test, generate, counts)
        else:
            yield from self._catch_errors(suite, case, test)
            counts.add(layouts.get(test, "kunit.status"))
        yield from self._say_speed(case, "kunit_case.attr.speed", f"{_INDENT}# {name}.speed")
        yield from self._say_counts(counts, f"{_INDENT}# {name}")
        status = layouts.get(case, "kunit_case.status")
        yield from self.say(_INDENT + _result_line(status, number, name, layouts.text(test, "kunit.status_comment")))
        if self.left_behind == left:  # else its thread may still look at it
            yield from env.kfree(test)
        return counts

    def _run_parameters(self, suite: int, case: int, test: int, generate: int, counts: _Counts) -> Steps:
        layouts, guest = self.layouts, self.guest
        description = yield from self.env.kmalloc(_DESCRIPTION_SIZE)
        yield from self.say(f"{_INDENT * 2}KTAP version 1")
        yield from self.say(f"{_INDENT * 2}# Subtest: {layouts.text(case, 'kunit_case.name')}")
        value, index = (yield (generate, 0, description)), 0
        while value:
            layouts.set(test, "kunit.param_value", value)
            layouts.set(test, "kunit.param_index", index)
            yield from self._catch_errors(suite, case, test)
            status = layouts.get(test, "kunit.status")
            text = guest.read_cstr(description, _DESCRIPTION_SIZE).decode("utf-8", "surrogateescape")
            comment = layouts.text(test, "kunit.status_comment")
            yield from self.say(_INDENT * 2 + _result_line(status, index + 1, text or f"param-{index}", comment))
            counts.add(status)
            guest.write(description, bytes(1))
            value, index = (yield (generate, value, description)), index + 1
            for member in ("status", "status_comment", "priv"):
                self._clear(test, f"kunit.{member}")
        yield from self.env.kfree(description)

    def _clear(self, test: int, member: str) -> None:
        place = self.layouts.members("kunit")[member.partition(".")[2]]
        self.guest.write(test + place.offset, bytes(place.size))

    def _catch_errors(self, suite: int, case: int, test: int) -> Steps:
        """``kunit_run_case_catch_errors``: the case in one thread, what comes after it in another."""
        layouts = self.layouts
        yield from self._attempt(test, lambda: self._case_body(suite, case, test), "")
        yield from self._attempt(test, lambda: self._cleanup_body(suite, test), " cleanup")
        status = layouts.get(test, "kunit.status")
        if status == FAILURE:
            layouts.set(case, "kunit_case.status", FAILURE)
        elif status == SUCCESS and layouts.get(case, "kunit_case.status") != FAILURE:
            layouts.set(case, "kunit_case.status", SUCCESS)

    def _attempt(self, test: int, body: Callable[[], Steps], what: str) -> Steps:
        layouts = self.layouts
        attempt = test + layouts.offset("kunit.try_catch")
        layouts.set(test, "kunit.try_catch.test", test)
        self._bodies[attempt] = body
        try:
            result = yield from self.try_catch_run(test)
        finally:
            del self._bodies[attempt]
        if not result or (result == -_EFAULT and not what):
            return
        layouts.set(test, "kunit.status", FAILURE)
        if result == -_EFAULT:
            yield from self.err(test, "test aborted during cleanup. continuing without cleaning up")
        elif result == -_ETIMEDOUT:
            yield from self.err(test, f"test case{what} timed out")
        else:
            doing = f"during test case{what}" if what else "preventing test case from running"
            yield from self.err(test, f"internal error occurred {doing}: {result}")

    def _case_body(self, suite: int, case: int, test: int) -> Steps:
        layouts = self.layouts
        init = layouts.get(suite, "kunit_suite.init")
        answer = _signed32((yield (init, test))) if init else 0
        if answer:
            yield from self.err(test, f"failed to initialize: {answer}")
            layouts.set(test, "kunit.status", FAILURE)
            return
        yield (layouts.get(case, "kunit_case.run_case"), test)

    def _cleanup_body(self, suite: int, test: int) -> Steps:
        end = self.layouts.get(suite, "kunit_suite.exit")
        if end:
            yield (end, test)
        yield from self.cleanup(test)

    def init_test(self, test: int, name: int, log: int) -> None:
        layouts = self.layouts
        self._clear(test, "kunit.lock")
        self.env.list_init(test + layouts.offset("kunit.resources"))
        layouts.set(test, "kunit.name", name)
        layouts.set(test, "kunit.log", log)
        layouts.set(test, "kunit.status", SUCCESS)
        self._clear(test, "kunit.status_comment")

    # -- threads --------------------------------------------------------------------------------------------------

    def try_catch_run(self, test: int) -> Result:
        """Have a kernel thread of its own do what ``test.try_catch`` says; 0 or the negative errno that it came to:
        EFAULT when it was ended by ``throw``, EINTR when it died otherwise, ETIMEDOUT."""
        layouts, guest = self.layouts, self.guest
        layouts.set(test, "kunit.try_catch.try_result", 0)
        name = yield from self.env.kstrdup(b"kunit_try_catch_thread")
        entry = self.natives.stub("kunit_generic_run_threadfn_adapter")
        task = yield (
            guest.symbol("kthread_create_on_node"), entry, test + layouts.offset("kunit.try_catch"), -1, name
        )  # fmt: skip
        yield from self.env.kfree(name)
        if errno_of(task):
            return -errno_of(task)
        view = guest.view("task_struct", task)
        view["usage"] = view["usage"] + 1  # get_task_struct
        done = view["vfork_done"]
        yield (guest.symbol("wake_up_process"), task)
        patience = yield (guest.symbol("__msecs_to_jiffies"), _TIMEOUT_MS // _WAITS)
        for _ in range(_WAITS):  # a single call may not take that long
            if (yield (guest.symbol("wait_for_completion_timeout"), done, patience)):
                break
        else:
            # kthread_stop could wait for ever; whoever loads keeps the module for the thread
            layouts.set(test, "kunit.try_catch.try_result", -_ETIMEDOUT)
            self.left_behind += 1
        view["usage"] = view["usage"] - 1
        if not view["usage"]:
            yield (guest.symbol("__put_task_struct"), task)
        result = _signed32(layouts.get(test, "kunit.try_catch.try_result"))
        if result == -_EFAULT:
            layouts.set(test, "kunit.try_catch.try_result", 0)
        elif result == -_EINTR:
            yield from self.err(test, f"try faulted{self._last_seen(test)}")
        elif result == -_ETIMEDOUT:
            yield from self.err(test, "try timed out")
        elif result:
            yield from self.err(test, f"Unknown error: {result}")
        return result

    def thread_body(self, attempt: int) -> Steps:
        """What the thread of a ``struct kunit_try_catch`` does."""
        layouts = self.layouts
        test = attempt - layouts.offset("kunit.try_catch")
        layouts.set(test, "kunit.try_catch.try_result", -_EINTR)
        body = self._bodies.get(attempt)
        if body is not None:
            yield from body()
        else:
            yield (layouts.get(test, "kunit.try_catch.try"), layouts.get(test, "kunit.try_catch.context"))
        if _signed32(layouts.get(test, "kunit.try_catch.try_result")) == -_EINTR:
            layouts.set(test, "kunit.try_catch.try_result", 0)

    def throw(self, attempt: int) -> Steps:
        """End the present thread; what called this never goes on."""
        self.layouts.set(attempt - self.layouts.offset("kunit.try_catch"), "kunit.try_catch.try_result", -_EFAULT)
        yield (self.guest.symbol("kthread_exit"), 0)

    def _last_seen(self, test: int) -> str:
        if not self.layouts.has("kunit.last_seen.file") or not self.layouts.get(test, "kunit.last_seen.file"):
            return ""
        file, line = self.layouts.text(test, "kunit.last_seen.file"), self.layouts.get(test, "kunit.last_seen.line")
        return f": last line seen {file}:{line}"

    # -- failing --------------------------------------------------------------------------------------------------

    def fail(self, test: int, location: int, kind: int, asserted: int, wording: int, message: int) -> Steps:
        """A failed expectation: note it and say what was expected. ``message`` is a format of the test's author, whose
        arguments follow the six of the call that is served; 0 where there is none."""
        layouts, frame = self.layouts, self.natives.frame
        layouts.set(test, "kunit.status", FAILURE)
        said = yield from self._format(message, frame) if message else _nothing()
        file, line = layouts.text(location, "kunit_loc.file"), layouts.get(location, "kunit_loc.line")
        head = f"{'ASSERTION' if kind == ASSERTION else 'EXPECTATION'} FAILED at {file}:{line}\n"
        name = self.natives.name_of(wording) or ""
        known = kunit_text.WORDINGS.get(name)
        if known is not None:
            body = known.say(self._asserted(asserted, known))
            text = f"{body}\n{said}" if message else body
        else:
            text = said
        yield from self.err(test, head + text)

    def _asserted(self, address: int, wording: kunit_text.Wording) -> kunit_text.Asserted:
        layouts = self.layouts
        values, texts = {}, {}
        for member, place in layouts.members(wording.struct).items():
            path = f"{wording.struct}.{member}"
            if member in wording.texts:
                texts[member] = layouts.text(address, path)
            elif place.size and place.size <= _EACH:
                values[member] = layouts.get(address, path)
        if "text" in values:
            for member in layouts.members("kunit_binary_assert_text"):
                texts[member] = layouts.text(values["text"], f"kunit_binary_assert_text.{member}")
        return kunit_text.Asserted(values, texts, self.guest.read)

    def _format(self, form: int, frame: int) -> _TextSteps:
        """``vsnprintf`` with the arguments that lie on the stack behind the six in registers."""
        # struct { gp_offset, fp_offset, overflow_arg_area, reg_save_area }: System V ABI, 3.5.7
        arguments = self.env.scratch(struct.pack("<IIQQ", 48, 304, frame + 16, frame - 48), _MESSAGE_AT)
        room = self.env.scratch(bytes(1), _MESSAGE_AT + 64)
        yield (self.guest.symbol("vsnprintf"), room, _MESSAGE_SIZE, form, arguments)
        return self.guest.read_cstr(room, _MESSAGE_SIZE).decode("utf-8", "surrogateescape")

    # -- resources ------------------------------------------------------------------------------------------------

    def alloc_resource(self, data: int, free: str, more: bytes = b"") -> Result:
        """A resource that the memory itself belongs to, with ``more`` behind it; not yet a test's."""
        resource = yield from self.env.kmalloc(self.layouts.size("kunit_resource") + len(more))
        self.layouts.set(resource, "kunit_resource.data", data)
        self.layouts.set(resource, "kunit_resource.free", self.natives.stub(free))
        self.layouts.set(resource, "kunit_resource.should_kfree", 1)
        self.guest.write(resource + self.layouts.size("kunit_resource"), more)
        return resource

    def link(self, test: int, resource: int) -> None:
        """Put a resource on its test's list, last."""
        self.layouts.set(resource, "kunit_resource.refcount", 1)
        head = test + self.layouts.offset("kunit.resources")
        node = resource + self.layouts.offset("kunit_resource.node")
        self.env.list_add(node, self.guest.read_uint(head + 8))

    def resources(self, test: int) -> list[int]:
        """The test's resources, the newest first."""
        head, found = test + self.layouts.offset("kunit.resources"), []
        at = self.guest.read_uint(head + 8)
        while at != head:
            found.append(at - self.layouts.offset("kunit_resource.node"))
            at = self.guest.read_uint(at + 8)
        return found

    def remove(self, resource: int) -> Steps:
        """``kunit_remove_resource``: off the list, and freed when nobody else holds it."""
        node = resource + self.layouts.offset("kunit_resource.node")
        linked = not self.env.list_empty(node)
        self.env.list_del(node)
        self.env.list_init(node)
        if linked:
            yield from self.put(resource)

    def put(self, resource: int) -> Steps:
        layouts = self.layouts
        left = layouts.get(resource, "kunit_resource.refcount") - 1
        layouts.set(resource, "kunit_resource.refcount", left)
        if left:
            return
        free = layouts.get(resource, "kunit_resource.free")
        if free:
            yield (free, resource)
        if layouts.get(resource, "kunit_resource.should_kfree"):
            yield from self.env.kfree(resource)

    def cleanup(self, test: int) -> Steps:
        """Free everything that the test still has, the newest first; freeing one may remove others."""
        while found := self.resources(test):
            yield from self.remove(found[0])

    # -- log ------------------------------------------------------------------------------------------------------

    def say(self, text: str, level: int = _INFO) -> Steps:
        yield from self.env.printk(level, text)

    def err(self, test: int, text: str) -> Steps:
        """``kunit_err``."""
        name = self.layouts.text(test, "kunit.name")
        yield from self.say(f"{_INDENT}# {name}: {text}".removesuffix("\n"), _ERR)

    def _say_speed(self, address: int, member: str, what: str) -> Steps:
        """Of a test that its author marked as slow, where there is such a mark."""
        speed = _SPEEDS.get(self.layouts.get(address, member)) if self.layouts.has(member) else None
        if speed is not None:
            yield from self.say(f"{what}: {speed}")

    def _say_counts(self, counts: _Counts, who: str) -> Steps:
        """Only where there is more than one."""
        if counts.total > 1:
            yield from self.say(f"{who}: {counts}")


class _Counts:
    def __init__(self) -> None:
        self._of = [0, 0, 0]

    def add(self, status: int) -> None:
        self._of[status] += 1

    def merge(self, other: _Counts) -> None:
        self._of = [mine + more for mine, more in zip(self._of, other._of, strict=True)]

    @property
    def total(self) -> int:
        return sum(self._of)

    def __str__(self) -> str:
        passed, failed, skipped = self._of
        return f"pass:{passed} fail:{failed} skip:{skipped} total:{self.total}"


def _result_line(status: int, number: int, name: str, comment: str) -> str:
    said = f"{'not ok' if status == FAILURE else 'ok'} {number} {name}"
    return f"{said} # SKIP {comment}" if status == SKIPPED else said


def _signed32(value: int) -> int:
    low = value & 0xFFFF_FFFF
    return low - (1 << 32) if low >> 31 else low


def _nothing() -> _TextSteps:
    yield from ()
    return ""

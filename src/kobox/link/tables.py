"""The tables a module carries: what fields of ``struct module`` that name one point to; sorting one of them.

Follows ``find_module_sections`` of kernel/module/main.c, ``module_bug_finalize``, and what arch/x86's
``module_finalize`` notes for the unwinder. Entry sizes come from the kernel at hand; pointers and distances have the
size their kind has.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from operator import le
from struct import Struct
from typing import NamedTuple

from kobox.link.findings import Level, LogLine, Refusal
from kobox.link.rules import Rules
from kobox.link.validity import LoadView

POINTER, DISTANCE, BYTE = 8, 4, 1
_OFFSETS = Struct("<i")


class _Field(NamedTuple):
    """A table: pointer and count members of ``struct module``, section names (the first one present), entry."""

    pointer: str
    counter: str
    sections: tuple[str, ...]
    entry: str | int
    loaded_only: bool = True


FIELDS = (
    _Field("kp", "num_kp", ("__param",), "kernel_param"),
    _Field("syms", "num_syms", ("__ksymtab",), "kernel_symbol"),
    _Field("crcs", "", ("__kcrctab",), DISTANCE),
    _Field("flagstab", "", ("__kflagstab",), BYTE),
    _Field("gpl_syms", "num_gpl_syms", ("__ksymtab_gpl",), "kernel_symbol"),
    _Field("gpl_crcs", "", ("__kcrctab_gpl",), DISTANCE),
    _Field("ctors", "num_ctors", (".ctors", ".init_array"), POINTER),
    _Field("noinstr_text_start", "noinstr_text_size", (".noinstr.text",), BYTE),
    _Field("tracepoints_ptrs", "num_tracepoints", ("__tracepoints_ptrs",), DISTANCE),
    _Field("srcu_struct_ptrs", "num_srcu_structs", ("___srcu_struct_ptrs",), POINTER),
    _Field("bpf_raw_events", "num_bpf_raw_events", ("__bpf_raw_tp_map",), "bpf_raw_event_map"),
    _Field("btf_data", "btf_data_size", (".BTF",), BYTE, False),
    _Field("btf_base_data", "btf_base_data_size", (".BTF.base",), BYTE, False),
    _Field("jump_entries", "num_jump_entries", ("__jump_table",), "jump_entry"),
    _Field("trace_events", "num_trace_events", ("_ftrace_events",), POINTER),
    _Field("trace_evals", "num_trace_evals", ("_ftrace_eval_map",), POINTER),
    _Field("trace_bprintk_fmt_start", "num_trace_bprintk_fmt", ("__trace_printk_fmt",), POINTER),
    _Field("ftrace_callsites", "num_ftrace_callsites", ("__mcount_loc",), POINTER),
    _Field("ei_funcs", "num_ei_funcs", ("_error_injection_whitelist",), "error_injection_entry"),
    _Field("kprobes_text_start", "kprobes_text_size", (".kprobes.text",), BYTE),
    _Field("kprobe_blacklist", "num_kprobe_blacklist", ("_kprobe_blacklist",), POINTER),
    _Field("printk_index_start", "printk_index_size", (".printk_index",), POINTER),
    _Field("static_call_sites", "num_static_call_sites", (".static_call_sites",), "static_call_site"),
    _Field("kunit_init_suites", "num_kunit_init_suites", (".kunit_init_test_suites",), POINTER),
    _Field("kunit_suites", "num_kunit_suites", (".kunit_test_suites",), POINTER),
    _Field("extable", "num_exentries", ("__ex_table",), "exception_table_entry"),
    _Field("dyndbg_info.descs", "dyndbg_info.num_descs", ("__dyndbg",), "_ddebug"),
    _Field("dyndbg_info.classes", "dyndbg_info.num_classes", ("__dyndbg_classes",), "ddebug_class_map"),
    _Field("bug_table", "num_bugs", ("__bug_table",), "bug_entry", False),
    _Field("arch.orc_unwind_ip", "arch.num_orcs", (".orc_unwind_ip",), DISTANCE, False),
    _Field("arch.orc_unwind", "", (".orc_unwind",), "orc_entry", False),
)


class Table(NamedTuple):
    """One table of a module.

    ``address`` is 0 for a section that is not loaded (``section`` says where in the file it is). ``entries`` is None
    where the kernel at hand has no such entry type, hence no size. ``count_field`` is empty where no member counts.
    """

    field: str
    count_field: str
    section: int
    address: int
    size: int
    entries: int | None


def find_tables(view: LoadView, addresses: Sequence[int], rules: Rules) -> dict[str, Table]:
    """The tables that ``view`` has, by the field of ``struct module`` that points to them."""
    found: dict[str, Table] = {}
    for field in FIELDS:
        find = view.find if field.loaded_only else view.find_any
        section = next(filter(None, map(find, field.sections)), 0)
        if not section:
            continue
        size = view.sections[section].size
        entry = rules.sizes.get(field.entry, 0) if isinstance(field.entry, str) else field.entry
        found[field.pointer] = Table(
            field.pointer, field.counter, section, addresses[section], size, size // entry if entry else None
        )
    return found


def table_fields() -> frozenset[str]:
    """The members of ``struct module`` that every load sets, to zero where the file has no such table.

    The architecture's own are set only when their tables are there.
    """
    return frozenset(
        name for field in FIELDS for name in (field.pointer, field.counter) if name and not name.startswith("arch.")
    )


def check_tables(view: LoadView, constructors: bool = False) -> tuple[LogLine, ...]:
    """What the kernel says about a module's tables; with ``constructors`` it refuses two kinds of them (EINVAL)."""
    if constructors and view.find(".ctors") and view.find(".init_array"):
        line = f"{view.mod_name}: has both .ctors and .init_array."
        raise Refusal(errno.EINVAL, (LogLine(Level.WARNING, line),))
    if view.find("__obsparm"):
        return (LogLine(Level.WARNING, f"{view.mod_name}: Ignoring obsolete parameters"),)
    return ()


def sort_extable(table: memoryview, rules: Rules) -> None:
    """Sort the exception table by the address of the faulting instruction; entries hold distances from themselves."""
    entry = rules.sizes["exception_table_entry"]
    total = len(table) // entry * entry
    at = range(0, total, entry)
    insns = [_OFFSETS.unpack_from(table, place)[0] + place for place in at]
    if all(map(le, insns, insns[1:])):
        return
    old = bytes(table)
    for place, number in zip(at, sorted(range(len(insns)), key=insns.__getitem__), strict=True):
        moved = number * entry - place
        (fixup,) = _OFFSETS.unpack_from(old, number * entry + DISTANCE)
        table[place : place + entry] = old[number * entry : (number + 1) * entry]
        _OFFSETS.pack_into(table, place, insns[number] - place)
        _OFFSETS.pack_into(table, place + DISTANCE, fixup + moved)

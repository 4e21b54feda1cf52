"""The kernel's own KUnit core as a module for a kernel that was built without it: the second opinion on kobox's.

``lib/kunit`` is compiled from the distribution's source with three changes, because CONFIG_KUNIT would change
``task_struct`` and ``struct module``: the present test is noted in a member of ``current`` that file systems use, the
notifier that would find the suites in ``struct module`` goes, and each module of tests is linked with a piece of code
that hands its suites over instead, from its init. What asserts, counts, prints and frees is the kernel's.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import kernel_headers

from kobox.build.headers import Headers

_LEFT_OUT = ("debugfs", "executor_test", "kunit-example-test", "kunit-test", "string-stream-test", "assert_test",
             "platform-test", "user_alloc")  # fmt: skip
_SECTION = ".kunit_test_suites"
_PRELUDE = """\
#include <linux/sched.h>
#include <linux/module.h>
#include <linux/device.h>
#define CONFIG_KUNIT_MODULE 1
#define kunit_test journal_info
"""
_FIRST = f'asm(".pushsection {_SECTION},\\"aw\\"\\n.balign 8\\n.globl real_first\\nreal_first:\\n.popsection\\n");\n'
_LAST = f"""\
#include <linux/module.h>
#include <kunit/test.h>
asm(".pushsection {_SECTION},\\"aw\\"\\n.globl real_last\\nreal_last:\\n.popsection\\n");
extern struct kunit_suite *real_first[], *real_last[];
static int __init hand_over(void)
{{
\treturn __kunit_test_suites_init(real_first, real_last - real_first);
}}
static void __exit take_back(void)
{{
\t__kunit_test_suites_exit(real_first, real_last - real_first);
}}
module_init(hand_over);
module_exit(take_back);
MODULE_LICENSE("GPL");
"""


def build_real_kunit(headers: Headers, core: Path, tests: Sequence[Path], work: Path) -> dict[str, bytes]:
    """Modules by file name: ``kunit.ko``, and one for each of ``tests``, C files with their headers beside them.

    ``core`` is the folder ``lib/kunit`` of the source; ``work`` is an empty folder to build in.
    """
    names = _copy_core(core, work)
    lines = ["obj-m := kunit.o", f"kunit-objs := {' '.join(f'core-{name}.o' for name in names)}"]
    # a device of KUnit's own is declared for kernels that have it only
    (work / "prelude.h").write_text(_PRELUDE)
    lines += [f"CFLAGS_core-{name}.o := -include $(src)/prelude.h" for name in names]
    for source in tests:
        name = source.stem.replace("-", "_")
        shutil.copyfile(source, work / f"{name}-tests.c")
        (work / f"{name}-first.c").write_text(_FIRST)
        (work / f"{name}-last.c").write_text(_LAST)
        lines.append(f"CFLAGS_{name}-tests.o := -I{source.parent.resolve()}")
        lines += [f"obj-m += {name}.o", f"{name}-objs := {name}-first.o {name}-tests.o {name}-last.o"]
    (work / "Kbuild").write_text("\n".join(lines) + "\n")
    kernel_headers.make_modules(headers, work)
    return {path.name: path.read_bytes() for path in work.glob("*.ko")}


def _copy_core(core: Path, work: Path) -> list[str]:
    for header in core.glob("*.h"):
        shutil.copyfile(header, work / header.name)
    names = []
    for source in sorted(core.glob("*.c")):
        if source.stem in _LEFT_OUT:
            continue
        text = source.read_text()
        text = text.replace("#ifdef CONFIG_MODULES", "#if 0")
        text = text.replace(
            "(current->kunit_test", "((struct kunit *)current->kunit_test"
        )  # the other member is void *
        if source.stem == "test":
            text = text.replace("#ifdef CONFIG_KUNIT_DEFAULT_ENABLED", "#if 1")
        (work / f"core-{source.name}").write_text(text)
        names.append(source.stem)
    return names

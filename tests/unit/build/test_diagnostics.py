"""What compiler, linker, modpost, objtool and make print becomes records, none lost and none invented."""

from __future__ import annotations

from kobox.build.diagnostics import Diagnostic, hint_of, read_diagnostics
from kobox.build.render import diagnostic_lines

COMPILER = """\
make[1]: Entering directory '/usr/src/linux-headers'
In file included from /copy/hello.h:3,
                 from /copy/hello.c:1:
/copy/hello.c: In function 'hello_init':
/copy/hello.c:46:20: error: 'foo' undeclared (first use in this function); did you mean 'folio'?
   46 |         return 0 + foo;
      |                    ^~~
      |                    folio
/copy/hello.c:50:1: warning: 'unused' defined but not used [-Wunused-function]
   50 | static void unused(void)
      | ^~~~~~
make[2]: *** [scripts/Makefile.build:255: /copy/hello.o] Error 1
make[1]: *** [Makefile:2035: /copy] Error 2
make: *** Waiting for unfinished jobs....
"""


def read(output: str) -> tuple[Diagnostic, ...]:
    return read_diagnostics(output, lambda text: text.replace("/copy/", ""))


def test_an_error_has_place_text_context_and_source_lines() -> None:
    error, warning = read(COMPILER)
    assert (error.level, error.file, error.line, error.column) == ("error", "hello.c", 46, 20)
    assert error.text.startswith("'foo' undeclared")
    assert error.before == (
        "In file included from hello.h:3,",
        "                 from hello.c:1:",
        "hello.c: In function 'hello_init':",
    )
    assert error.lines[0] == "   46 |         return 0 + foo;"
    assert len(error.lines) == 3
    assert (warning.level, warning.line) == ("warning", 50)


def test_a_fatal_error_is_an_error() -> None:
    (one,) = read("/copy/a.c:2:10: fatal error: no/such.h: No such file or directory\ncompilation terminated.\n")
    assert (one.level, one.text) == ("error", "no/such.h: No such file or directory")


def test_modposts_words_are_kept_with_a_way_out() -> None:
    undefined, licence = read(
        'ERROR: modpost: "lost_symbol" [/copy/a.ko] undefined!\n'
        "WARNING: modpost: missing MODULE_LICENSE() in /copy/b.o\n"
    )
    assert (undefined.level, undefined.text) == ("error", '"lost_symbol" [a.ko] undefined!')
    assert "--symvers" in (hint_of(undefined) or "")
    assert (licence.level, hint_of(licence)) == ("warning", 'add MODULE_LICENSE("GPL") or what applies')


def test_makes_own_trouble_is_an_error_when_it_is_all_there_is() -> None:
    (one,) = read("make[2]: *** No rule to make target '/copy/gone.o', needed by '/copy/m.o'.  Stop.\n")
    assert (one.level, one.text) == ("error", "No rule to make target 'gone.o', needed by 'm.o'.  Stop.")
    (missing,) = read("Makefile:3: *** missing separator.  Stop.\n")
    assert (missing.file, missing.line, missing.text) == ("Makefile", 3, "missing separator.  Stop.")


def test_a_program_of_the_headers_that_cannot_run_is_told_with_its_reason() -> None:
    (one,) = read(
        "./tools/objtool: /lib/libc.so.6: version `GLIBC_2.38' not found (required by ./tools/objtool)\n"
        "make[2]: *** [Makefile.build:234: /copy/hello.o] Error 1\nmake[2]: *** Deleting file '/copy/hello.o'\n"
    )
    assert one.level == "error"
    assert "newer distribution" in (hint_of(one) or "")


def test_a_compilers_unknown_option_and_objtools_warning_are_read() -> None:
    option, objtool = read(
        "gcc-12: error: unrecognized command-line option '-fnew'\n/copy/a.o: warning: objtool: f+0x1: unreachable\n"
    )
    assert (option.level, option.file) == ("error", "gcc-12")
    assert (objtool.level, objtool.file, objtool.text) == ("warning", "a.o", "objtool: f+0x1: unreachable")


def test_what_is_no_remark_is_no_record() -> None:
    assert read("  CC [M]  /copy/a.o\nSkipping BTF generation for /copy/a.ko due to unavailability of vmlinux\n") == ()


def test_text_is_as_a_compiler_prints_it_and_coloured_on_demand() -> None:
    plain = "\n".join(diagnostic_lines(read(COMPILER), colour=False))
    assert "hello.c:46:20: error: 'foo' undeclared" in plain
    assert "\033" not in plain
    coloured = "\n".join(diagnostic_lines(read(COMPILER), colour=True))
    assert "\033[31;1merror:\033[0m" in coloured
    assert "\033[31;1m^~~\033[0m" in coloured


def test_last_words_of_an_unknown_tool_are_kept() -> None:
    error, _ = read(
        "pahole: unrecognized option '--new'\nTry `pahole --help'\n"
        "make[2]: *** [Makefile.modfinal:64: /copy/hello.ko] Error 64\nmake[2]: *** Deleting file '/copy/hello.ko'\n"
    )
    assert error.before == ("pahole: unrecognized option '--new'", "Try `pahole --help'")

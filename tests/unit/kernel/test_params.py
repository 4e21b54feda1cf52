"""Parameters by the kernel's rules: taking a string apart, numbers, every standard type."""

from __future__ import annotations

import errno

import pytest

from kobox.errors import Errno
from kobox.kernel import params
from kobox.kernel.params import ArrayArg, Parameter, Parsed, StringArg


class Memory:
    """An ``Environment``: a page of memory at 0x1000, strings from 0x100000 on."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}
        self.lines: list[tuple[int, str]] = []
        self.tainted = self.is_locked_down = False
        self.next_string = 0x10_0000
        self.strings: set[int] = set()
        self.descriptors: dict[int, StringArg | ArrayArg] = {}

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.bytes.get(address + index, 0) for index in range(size))

    def write(self, address: int, data: bytes) -> None:
        self.bytes.update(enumerate(data, address))

    def duplicate(self, text: bytes) -> int:
        address = self.next_string
        self.next_string += 0x1000
        self.strings.add(address)
        self.write(address, text + b"\0")
        return address

    def release(self, address: int) -> None:
        self.strings.discard(address)

    def log(self, level: int, text: str) -> None:
        self.lines.append((level, text))

    def taint_unsafe(self) -> None:
        self.tainted = True

    def locked_down(self) -> bool:
        return self.is_locked_down

    def string_at(self, address: int) -> StringArg:
        found = self.descriptors[address]
        assert isinstance(found, StringArg)
        return found

    def array_at(self, address: int) -> ArrayArg:
        found = self.descriptors[address]
        assert isinstance(found, ArrayArg)
        return found


@pytest.fixture
def memory() -> Memory:
    return Memory()


def run(text: bytes, known: list[Parameter], memory: Memory, **levels: int) -> tuple[Parsed, list[bytes]]:
    """Parse and set as a loader does: the result, and the unknown names."""
    unknown = []
    args = bytearray(text + b"\0")
    parsing = params.parse_args("mod", args, known, memory, **levels)
    answer = None
    while True:
        try:
            request = parsing.send(answer) if answer is not None else next(parsing)
        except StopIteration as done:
            return done.value, unknown
        if request.parameter is None:
            unknown.append(request.argument.name)
            answer = 0
        else:
            answer = params.set_parameter(request.parameter, request.argument.value, memory)
            if request.parameter.type == "array":
                params.cut_array(args, request.argument.at)


# Taking a string apart


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        (b"num=5", [(b"num", b"5")]),
        (b"  a=1 \t\n b \xa0", [(b"a", b"1"), (b"b", None)]),
        (b'a="b c" d', [(b"a", b"b c"), (b"d", None)]),
        (b'"a=b c" d', [(b"a", b"b c"), (b"d", None)]),
        (b'a="b c"d e', [(b"a", b'b c"d'), (b"e", None)]),
        (b"a='b c'", [(b"a", b"'b"), (b"c'", None)]),
        (b"a=b\\ c", [(b"a", b"b\\"), (b"c", None)]),
        (b"a=1=2", [(b"a", b"1=2")]),
        (b"=5", [(b"=5", None)]),
        (b"a=", [(b"a", b"")]),
        (b'a="', [(b"a", b"")]),
        (b'a=""', [(b"a", b"")]),
        (b'"', [(b"", None)]),
        (b'"a b" c', [(b"a b", None), (b"c", None)]),
        (b"a=1 -- b=2", [(b"a", b"1"), (b"--", None), (b"b", b"2")]),
        (b"", []),
    ],
)
def test_a_string_is_taken_apart_at_spaces_outside_of_double_quotes(
    text: bytes, pairs: list[tuple[bytes, bytes | None]]
) -> None:
    assert [(argument.name, argument.value) for argument in params.arguments(text)] == pairs


def test_the_offset_of_a_value_points_into_the_cut_string() -> None:
    args = bytearray(b'a="b c" d=1\0')
    argument, after = params.next_arg(args, 0)
    assert (args[argument.at : argument.at + 4], after) == (b"b c\0", 8)
    argument, after = params.next_arg(args, after)
    assert (args[argument.at :], args[after]) == (b"1\0", 0)


def test_dashes_are_underscores_and_case_matters(memory: Memory) -> None:
    known = [Parameter("a_b-c", 0x1000, "int")]
    assert run(b"a-b_c=5", known, memory)[0].error == 0
    assert memory.read(0x1000, 1) == b"\5"
    assert run(b"A_b_c=5", known, memory)[1] == [b"A_b_c"]


def test_after_an_error_the_rest_is_still_set_and_the_last_error_counts(memory: Memory) -> None:
    known = [Parameter("n", 0x1000, "int"), Parameter("b", 0x1004, "byte"), Parameter("o", 0x1005, "byte")]
    parsed, _ = run(b"n=bad b=256 o=1", known, memory)
    assert parsed == Parsed(-errno.ERANGE, None)
    assert memory.read(0x1005, 1) == b"\1"
    assert memory.lines == [
        (3, "mod: `bad' invalid for parameter `n'"),
        (3, "mod: `256' invalid for parameter `b'"),
    ]
    assert run(b"b=256 n=bad", known, memory)[0].error == -errno.EINVAL


def test_two_dashes_end_it_and_hand_back_the_rest(memory: Memory) -> None:
    known = [Parameter("n", 0x1000, "int")]
    assert run(b"n=1 --", known, memory)[0] == Parsed(0, b"")
    assert run(b"n=1 -- n=2 x", known, memory)[0] == Parsed(0, b"n=2 x")
    assert memory.read(0x1000, 1) == b"\1"
    assert run(b"n=x -- n=2", known, memory)[0] == Parsed(-errno.EINVAL, None)
    assert params.rest_line("mod", b"n=2 x") == "mod: parameters 'n=2 x' after `--' ignored"


def test_a_value_may_lack_only_where_the_type_says_so(memory: Memory) -> None:
    for kind in ("bool", "bool_enable_only", "bint"):
        assert run(b"p", [Parameter("p", 0x1000, kind)], memory)[0].error == 0
    for kind in ("int", "charp", "invbool", "hexint"):
        assert run(b"p", [Parameter("p", 0x1000, kind)], memory)[0].error == -errno.EINVAL
    assert memory.lines[-1] == (3, "mod: `' invalid for parameter `p'")
    own = Parameter("p", 0x1000, takes_no_value=True)
    request = next(params.parse_args("mod", bytearray(b"p\0"), [own], memory))
    assert request.parameter is own


def test_a_parameter_of_another_level_is_passed_over(memory: Memory) -> None:
    known = [Parameter("p", 0x1000, "int", level=3)]
    assert run(b"p=1", known, memory, min_level=-1, max_level=-1) == (Parsed(0, None), [])
    assert memory.read(0x1000, 1) == b"\0"


def test_the_result_of_a_set_decides_the_line() -> None:
    argument = params.Argument(b"p", b"v", 0)
    assert params.error_line("m", argument, -errno.ENOENT) == "m: Unknown parameter `p'"
    assert params.error_line("m", argument, -errno.ENOSPC) == "m: `v' too large for parameter `p'"
    assert params.error_line("m", argument, -errno.EIO) == "m: `v' invalid for parameter `p'"
    assert params.ignored_line("m", argument) == "m: unknown parameter 'p' ignored"


def test_the_command_line_holds_settings_of_modules() -> None:
    line = 'root=/dev/sda hello.num=77 he-lo.x="a b" he_lo.flag other.num=1 -- he-lo.y=1'
    assert params.command_line_settings(line, "hello") == ["num=77"]
    assert params.command_line_settings(line, "he_lo") == ["x=a b", "flag"]


# Taint and lockdown


def test_an_unsafe_parameter_taints_before_it_is_set(memory: Memory) -> None:
    unsafe = Parameter("p", 0x1000, "int", flags=params.UNSAFE)
    assert run(b"p=bad", [unsafe], memory)[0].error == -errno.EINVAL
    assert memory.tainted
    assert memory.lines[0] == (5, "Setting dangerous option p - tainting kernel")


def test_a_hardware_parameter_is_eperm_under_lockdown_and_does_not_taint(memory: Memory) -> None:
    hardware = Parameter("p", 0x1000, "int", flags=params.UNSAFE | params.HWPARAM)
    memory.is_locked_down = True
    assert run(b"p=1", [hardware], memory)[0].error == -errno.EPERM
    assert params.store(hardware, b"1", memory) == -errno.EPERM
    assert not memory.tainted
    memory.is_locked_down = False
    assert params.store(hardware, b"1\n", memory) == 2


# Numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"5", 5),
        (b"+5", 5),
        (b"0", 0),
        (b"00", 0),
        (b"010", 8),
        (b"0x10", 16),
        (b"0X1f", 31),
        (b"5\n", 5),
        (b"-5", -5),
        (b"-0", 0),
        (b"-0x10", -16),
        (b"-010", -8),
        (b"2147483647", 2147483647),
        (b"-2147483648", -2147483648),
    ],
)
def test_a_number_is_read(text: bytes, value: int) -> None:
    assert params.parse_number(text, 32, signed=True) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b" 5",
        b"5 ",
        b"5\n\n",
        b"abc",
        b"5abc",
        b"0x",
        b"0xg",
        b"08",
        b"0b1",
        b"-",
        b"+",
        b"--5",
        b"+-5",
        b"-+5",
    ],
)
def test_what_is_no_number_is_einval(text: bytes) -> None:
    with pytest.raises(Errno) as caught:
        params.parse_number(text, 32, signed=True)
    assert caught.value.number == errno.EINVAL


@pytest.mark.parametrize(
    ("text", "bits", "signed"),
    [
        (b"256", 8, False),
        (b"32768", 16, True),
        (b"-32769", 16, True),
        (b"65536", 16, False),
        (b"2147483648", 32, True),
        (b"4294967296", 32, False),
        (b"9223372036854775808", 64, True),
        (b"-9223372036854775809", 64, True),
        (b"18446744073709551616", 64, False),
        (b"-18446744073709551616", 64, True),
        (b"99999999999999999999999abc", 64, False),
    ],
)
def test_a_number_beyond_its_type_is_erange_whatever_follows(text: bytes, bits: int, signed: bool) -> None:
    with pytest.raises(Errno) as caught:
        params.parse_number(text, bits, signed)
    assert caught.value.number == errno.ERANGE


def test_an_unsigned_type_knows_no_minus_sign() -> None:
    with pytest.raises(Errno) as caught:
        params.parse_number(b"-0", 64, signed=False)
    assert caught.value.number == errno.EINVAL


@pytest.mark.parametrize(
    ("kind", "value", "stored", "shown"),
    [
        ("byte", b"255", b"\xff", b"255\n"),
        ("short", b"-3", b"\xfd\xff", b"-3\n"),
        ("ushort", b"0x10", b"\x10\x00", b"16\n"),
        ("int", b"-42", b"\xd6\xff\xff\xff", b"-42\n"),
        ("uint", b"4294967295", b"\xff\xff\xff\xff", b"4294967295\n"),
        ("long", b"-1", b"\xff" * 8, b"-1\n"),
        ("ulong", b"1", b"\1" + bytes(7), b"1\n"),
        ("ullong", b"18446744073709551615", b"\xff" * 8, b"18446744073709551615\n"),
        ("hexint", b"48879", b"\xef\xbe\0\0", b"0x00beef\n"),
        ("hexint", b"0", bytes(4), b"0x000000\n"),
        ("hexint", b"0xdeadbeef", b"\xef\xbe\xad\xde", b"0xdeadbeef\n"),
        ("bool", b"y", b"\1", b"Y\n"),
        ("invbool", b"y", b"\0", b"Y\n"),
        ("invbool", b"n", b"\1", b"N\n"),
        ("bint", b"on", b"\1\0\0\0", b"1\n"),
    ],
)
def test_a_type_stores_its_bytes_and_shows_its_text(
    kind: str, value: bytes, stored: bytes, shown: bytes, memory: Memory
) -> None:
    parameter = Parameter("p", 0x1000, kind)
    memory.write(0x1000, b"\xaa" * 12)
    assert params.set_parameter(parameter, value, memory) == 0
    assert memory.read(0x1000, len(stored) + 1) == stored + b"\xaa"
    assert params.get_parameter(parameter, memory) == shown


@pytest.mark.parametrize("text", [b"y", b"Yes", b"t", b"T", b"1", b"on", b"oN!", b"ON"])
def test_truth_is_told_by_the_first_letters(text: bytes) -> None:
    assert params.parse_bool(text)


@pytest.mark.parametrize("text", [b"n", b"NO", b"f", b"0", b"01", b"of", b"OFF"])
def test_falsehood_too(text: bytes) -> None:
    assert not params.parse_bool(text)


@pytest.mark.parametrize("text", [b"", b"2", b"o", b"ox", b" y", b"-1"])
def test_what_is_neither_is_einval(text: bytes, memory: Memory) -> None:
    assert params.set_parameter(Parameter("p", 0x1000, "bool"), text, memory) == -errno.EINVAL


def test_enable_only_cannot_be_taken_back(memory: Memory) -> None:
    parameter = Parameter("p", 0x1000, "bool_enable_only")
    assert params.store(parameter, b"0", memory) == 1
    assert params.store(parameter, b"1", memory) == 1
    assert params.store(parameter, b"0", memory) == -errno.EROFS
    assert params.store(parameter, b"2", memory) == -errno.EINVAL
    assert params.get_parameter(parameter, memory) == b"Y\n"


# Strings


def test_a_charp_is_a_copy_that_replaces_the_last_copy_and_spares_the_default(memory: Memory) -> None:
    parameter = Parameter("p", 0x1000, "charp")
    assert params.get_parameter(parameter, memory) == b"(null)\n"
    memory.write(0x2000, b"default\0")
    memory.write(0x1000, (0x2000).to_bytes(8, "little"))
    assert params.get_parameter(parameter, memory) == b"default\n"
    assert params.set_parameter(parameter, b"one", memory) == 0
    assert params.set_parameter(parameter, b"", memory) == 0
    assert params.get_parameter(parameter, memory) == b"\n"
    assert len(memory.strings) == 1
    params.release_parameters([parameter], memory)
    assert not memory.strings


def test_a_charp_holds_1024_bytes(memory: Memory) -> None:
    parameter = Parameter("p", 0x1000, "charp")
    assert run(b"p=" + b"x" * 1024, [parameter], memory)[0].error == 0
    assert run(b"p=" + b"x" * 1025, [parameter], memory)[0].error == -errno.ENOSPC
    assert memory.lines[0] == (3, "p: string parameter too long")
    assert memory.lines[1][1].endswith("' too large for parameter `p'")
    assert params.get_parameter(parameter, memory) == b"x" * 1024 + b"\n"


def test_a_string_fits_with_its_final_nul_or_not_at_all(memory: Memory) -> None:
    parameter = Parameter("p", 0x3000, "string")
    memory.descriptors[0x3000] = StringArg(4, 0x1000)
    assert params.set_parameter(parameter, b"abc", memory) == 0
    assert params.set_parameter(parameter, b"abcd", memory) == -errno.ENOSPC
    assert memory.lines == [(3, "p: string doesn't fit in 3 chars.")]
    assert params.get_parameter(parameter, memory) == b"abc\n"


# Arrays


def test_an_array_takes_values_between_commas_and_counts_them(memory: Memory) -> None:
    parameter = Parameter("a", 0x3000, "array")
    memory.descriptors[0x3000] = ArrayArg(3, 4, 0x2000, "int", 0x1000)
    assert params.set_parameter(parameter, b"1,0x2", memory) == 0
    assert memory.read(0x2000, 1) == b"\2"
    assert params.get_parameter(parameter, memory) == b"1,2\n"


def test_an_array_without_count_shows_all_elements(memory: Memory) -> None:
    parameter = Parameter("a", 0x3000, "array")
    memory.descriptors[0x3000] = ArrayArg(3, 2, 0, "short", 0x1000)
    assert params.set_parameter(parameter, b"-1", memory) == 0
    assert params.get_parameter(parameter, memory) == b"-1,0,0\n"


def test_an_array_keeps_what_it_took_before_an_error(memory: Memory) -> None:
    parameter = Parameter("a", 0x3000, "array")
    memory.descriptors[0x3000] = ArrayArg(2, 1, 0x2000, "byte", 0x1000)
    assert params.set_parameter(parameter, b"1,2,3", memory) == -errno.EINVAL
    assert memory.lines == [(3, "a: can only take 2 arguments")]
    assert params.get_parameter(parameter, memory) == b"1,2\n"
    assert params.set_parameter(parameter, b"7,,8", memory) == -errno.EINVAL
    assert params.get_parameter(parameter, memory) == b"7\n"
    assert params.set_parameter(parameter, b"", memory) == -errno.EINVAL
    assert params.get_parameter(parameter, memory) == b""


def test_a_refused_array_is_printed_up_to_its_first_comma(memory: Memory) -> None:
    memory.descriptors[0x3000] = ArrayArg(2, 1, 0x2000, "byte", 0x1000)
    run(b"a=1,2,3 b=1,2", [Parameter("a", 0x3000, "array"), Parameter("b", 0x1008, "byte")], memory)
    assert [text for _, text in memory.lines] == [
        "a: can only take 2 arguments",
        "mod: `1' invalid for parameter `a'",
        "mod: `1,2' invalid for parameter `b'",
    ]


def test_an_array_of_strings_gives_them_back(memory: Memory) -> None:
    parameter = Parameter("a", 0x3000, "array")
    memory.descriptors[0x3000] = ArrayArg(3, 8, 0x2000, "charp", 0x1000)
    assert params.set_parameter(parameter, b"x,,z", memory) == 0
    assert params.get_parameter(parameter, memory) == b"x,,z\n"
    params.release_parameters([parameter], memory)
    assert not memory.strings

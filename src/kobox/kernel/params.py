"""Module parameters: how an argument string is taken apart, and what each standard type accepts and shows.

Everything here is pure: memory, log, taint and lockdown are asked of an ``Environment``. On an image the set and get
functions of ``param_ops_*`` are guest code, and only ``parse_args`` and its rules are used; the bare kernel uses the
types too. Errors are negative numbers, because guest functions answer in the same way. Text is bytes, log lines are
latin-1. Follows kernel/params.c, next_arg() of lib/cmdline.c and lib/kstrtox.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from kobox.errors import Errno

PAGE_SIZE: Final = 4096
UNSAFE: Final = 1
HWPARAM: Final = 2
CHARP_MAX: Final = 1024
SPACES: Final = b"\t\n\v\f\r \xa0"
"""What the kernel's isspace() takes, which is Latin-1's."""
_QUOTE, _EQUALS = ord('"'), ord("=")


class StringArg(NamedTuple):
    """What ``arg`` of a string parameter points to: room for ``maxlen`` bytes, the final NUL included, at
    ``address``.
    """

    maxlen: int
    address: int


class ArrayArg(NamedTuple):
    """What ``arg`` of an array parameter points to. ``count_at`` is the address of the number of elements set, or 0."""

    maximum: int
    element_size: int
    count_at: int
    element_type: str
    address: int


class Policy(Protocol):
    """What taking arguments apart asks of the kernel around it."""

    def log(self, level: int, text: str) -> None: ...
    def taint_unsafe(self) -> None: ...
    def locked_down(self) -> bool:
        """Whether lockdown forbids hardware parameters; the kernel's notice is logged by it."""
        ...


class Environment(Policy, Protocol):
    """What the set and get of a standard type need besides."""

    def read(self, address: int, size: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...
    def duplicate(self, text: bytes) -> int:
        """A NUL-terminated copy in guest memory that ``release`` takes back; 0 when memory is short."""
        ...

    def release(self, address: int) -> None:
        """Give back what ``duplicate`` made; any other address, such as a default of the module, is left alone."""
        ...

    def string_at(self, address: int) -> StringArg: ...
    def array_at(self, address: int) -> ArrayArg: ...


class Parameter(NamedTuple):
    """One entry of ``__param``. ``type`` names a standard type or is empty for the module's own operations.

    ``takes_no_value``: its operations have KERNEL_PARAM_OPS_FL_NOARG; None asks the standard type.
    """

    name: str
    arg: int
    type: str = ""
    perm: int = 0
    level: int = -1
    flags: int = 0
    takes_no_value: bool | None = None

    @property
    def may_lack_value(self) -> bool:
        if self.takes_no_value is not None:
            return self.takes_no_value
        return self.type in TYPES and TYPES[self.type].takes_no_value


# The argument string


class Argument(NamedTuple):
    """``value`` is None without an ``=``. ``at`` is the value's offset in the argument string, -1 without one."""

    name: bytes
    value: bytes | None
    at: int


def next_arg(args: bytearray, start: int) -> tuple[Argument, int]:
    """Take the argument at ``start`` of the NUL-terminated ``args``, which is cut into strings on the way, as the
    kernel's is.

    Double quotes keep spaces together and are dropped around a value or a whole argument; nothing escapes them.
    """
    quoted = args[start] == _QUOTE
    if quoted:
        start += 1
    in_quote = quoted
    equals = 0
    end = start
    while char := args[end]:
        if char in SPACES and not in_quote:
            break
        if char == _EQUALS and not equals:
            equals = end - start
        if char == _QUOTE:
            in_quote = not in_quote
        end += 1
    value_at = -1
    if equals:
        args[start + equals] = 0
        value_at = start + equals + 1
        if args[value_at] == _QUOTE:
            value_at += 1
            if args[end - 1] == _QUOTE:
                args[end - 1] = 0
    if quoted and end > start and args[end - 1] == _QUOTE:
        args[end - 1] = 0
    after = end
    if args[end]:
        args[end] = 0
        after = end + 1
    value = c_string(args, value_at) if equals else None
    return Argument(c_string(args, start), value, value_at), skip_spaces(args, after)


def skip_spaces(args: bytes | bytearray, at: int) -> int:
    while args[at] in SPACES:
        at += 1
    return at


def c_string(data: bytes | bytearray, at: int) -> bytes:
    return bytes(data[at : data.index(0, at)])


def arguments(text: bytes) -> Iterator[Argument]:
    """Every argument of a string, ``--`` and what follows included."""
    args = bytearray(text.partition(b"\0")[0] + b"\0")
    at = skip_spaces(args, 0)
    while args[at]:
        argument, at = next_arg(args, at)
        yield argument


def same_name(a: str | bytes, b: str | bytes) -> bool:
    """Whether two parameter names are one to the kernel: dashes are underscores."""
    return _plain(a) == _plain(b)


def _plain(name: str | bytes) -> bytes:
    return (name.encode("latin-1") if isinstance(name, str) else name).replace(b"-", b"_")


def command_line_settings(command_line: str, module: str) -> list[str]:
    """The ``name=value`` texts that a kernel command line holds for ``module`` (``module.name=value``), in order."""
    found = []
    for argument in arguments(command_line.encode("latin-1", "replace")):
        if argument.name == b"--" and argument.value is None:
            break
        owner, dot, name = argument.name.decode("latin-1").partition(".")
        if dot and same_name(owner, module):
            found.append(name if argument.value is None else f"{name}={argument.value.decode('latin-1')}")
    return found


# Applying it


class Request(NamedTuple):
    """What the caller of ``parse_args`` is asked to do: set a parameter, or answer for an unknown name (None)."""

    parameter: Parameter | None
    argument: Argument


class Parsed(NamedTuple):
    """``error``: 0, or the last error met. ``rest``: what followed ``--``, None without one (or after an error)."""

    error: int
    rest: bytes | None


def parse_args(
    doing: str,
    args: bytearray,
    parameters: Sequence[Parameter],
    policy: Policy,
    min_level: int = -32768,
    max_level: int = 32767,
) -> Generator[Request, int, Parsed]:
    """Apply the argument string ``args`` (NUL-terminated, cut in place): yields what is to be done, is sent 0 or an
    error.

    ``doing`` leads the log lines: the module's name. Who sets a parameter brings ``args`` up to date with what the set
    did to its value (``cut_array`` for a standard array). An error does not end it; the last one is the result.
    """
    error = 0
    at = skip_spaces(args, 0)
    while args[at]:
        argument, at = next_arg(args, at)
        if argument.value is None and argument.name == b"--":
            return Parsed(error, None if error else c_string(args, at))
        result = yield from _parse_one(argument, parameters, policy, min_level, max_level)
        if result:
            policy.log(3, error_line(doing, argument._replace(value=_left_of(argument, args)), result))
            error = result
    return Parsed(error, None)


def _parse_one(
    argument: Argument,
    parameters: Sequence[Parameter],
    policy: Policy,
    min_level: int,
    max_level: int,
) -> Generator[Request, int, int]:
    wanted = _plain(argument.name)
    parameter = next((known for known in parameters if _plain(known.name) == wanted), None)
    if parameter is None:
        return (yield Request(None, argument))
    if not min_level <= parameter.level <= max_level:
        return 0
    if argument.value is None and not parameter.may_lack_value:
        return -errno.EINVAL
    if not may_set(parameter, policy):
        return -errno.EPERM
    return (yield Request(parameter, argument))


def _left_of(argument: Argument, args: bytearray) -> bytes | None:
    """The value as its set left it: that of an array cuts the string at the commas, and the kernel prints what is
    left.
    """
    return argument.value if argument.value is None else c_string(args, argument.at)


def may_set(parameter: Parameter, policy: Policy) -> bool:
    """The step before any set, at load and through sysfs: lockdown of hardware parameters, taint of unsafe ones."""
    if parameter.flags & HWPARAM and policy.locked_down():
        return False
    if parameter.flags & UNSAFE:
        policy.log(5, f"Setting dangerous option {parameter.name} - tainting kernel")
        policy.taint_unsafe()
    return True


def error_line(doing: str, argument: Argument, error: int) -> str:
    """What the kernel logs (level 3) when an argument was refused."""
    name, value = _shown(argument.name), _shown(argument.value or b"")
    if error == -errno.ENOENT:
        return f"{doing}: Unknown parameter `{name}'"
    if error == -errno.ENOSPC:
        return f"{doing}: `{value}' too large for parameter `{name}'"
    return f"{doing}: `{value}' invalid for parameter `{name}'"


def _shown(raw: bytes) -> str:
    """Bytes in a line of the log: what is no UTF-8 stays as it is."""
    return raw.decode("utf-8", "surrogateescape")


def without_owner(argument: Argument) -> Argument:
    """As a kernel with dynamic debug leaves it: looking for ``MODULE.dyndbg`` cut the name at its first dot."""
    return argument._replace(name=argument.name.partition(b".")[0])


def ignored_line(doing: str, argument: Argument) -> str:
    """What the kernel logs (level 4) for a name that no parameter has, when a module is loaded."""
    return f"{doing}: unknown parameter '{_shown(argument.name)}' ignored"


def rest_line(doing: str, rest: bytes) -> str:
    """What the kernel logs (level 4) for what follows ``--``, when a module is loaded."""
    return f"{doing}: parameters '{_shown(rest)}' after `--' ignored"


def set_parameter(parameter: Parameter, value: bytes | None, environment: Environment) -> int:
    """Set a parameter of a standard type: 0 or a negative errno."""
    try:
        TYPES[parameter.type].set(parameter, value, environment)
    except Errno as refused:
        return -refused.number
    return 0


def cut_array(args: bytearray, at: int) -> None:
    """What setting an array does to its value at ``at`` in the argument string: it ends at the first comma."""
    comma = args.find(b",", at, args.index(0, at))
    if comma >= 0:
        args[comma] = 0


def get_parameter(parameter: Parameter, environment: Environment) -> bytes:
    """A standard parameter as its sysfs file shows it, newline included."""
    return TYPES[parameter.type].get(parameter, environment)


def store(parameter: Parameter, data: bytes, environment: Environment) -> int:
    """A write to the sysfs file of a standard parameter: the number of bytes taken, or a negative errno."""
    if not may_set(parameter, environment):
        return -errno.EPERM
    return set_parameter(parameter, data.partition(b"\0")[0], environment) or len(data)


# Numbers and truth values


def _unsigned(text: bytes) -> int:
    """A whole string as a number below 2**64: decimal, 0x or leading 0; one newline may follow."""
    base = 10
    if text[:1] == b"0":
        is_hex = text[1:2] in (b"x", b"X") and text[2:3] in _HEX_DIGITS and len(text) > 2
        base, text = (16, text[2:]) if is_hex else (8, text)
    number = used = 0
    for char in text:
        digit = _DIGITS.get(char, 99)
        if digit >= base:
            break
        number = number * base + digit
        used += 1
    if number >= 1 << 64:
        raise Errno(errno.ERANGE)
    if not used or text[used:] not in (b"", b"\n"):
        raise Errno(errno.EINVAL)
    return number


_HEX_DIGITS: Final = b"0123456789abcdefABCDEF"
_DIGITS: Final = {char: int(chr(char), 16) for char in _HEX_DIGITS}


def parse_number(text: bytes, bits: int, signed: bool) -> int:
    """kstrtoint() and its family; raises ``Errno`` EINVAL or ERANGE."""
    if signed and text[:1] == b"-":
        number = -_unsigned(text[1:])
        if number < -(1 << 63):
            raise Errno(errno.ERANGE)
    else:
        number = _unsigned(text.removeprefix(b"+"))
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= number <= high:
        raise Errno(errno.ERANGE)
    return number


def parse_bool(text: bytes | None) -> bool:
    """kstrtobool(): only the first letter counts, two after an ``o``; raises ``Errno`` EINVAL."""
    first = (text or b"")[:1].lower()
    if first in (b"y", b"t", b"1"):
        return True
    if first in (b"n", b"f", b"0"):
        return False
    second = (text or b"")[1:2].lower()
    if first == b"o" and second in (b"n", b"f"):
        return second == b"n"
    raise Errno(errno.EINVAL)


# The standard types

Setter = Callable[[Parameter, bytes | None, Environment], None]
Getter = Callable[[Parameter, Environment], bytes]


class Type(NamedTuple):
    set: Setter
    get: Getter
    takes_no_value: bool = False


def _number(bits: int, signed: bool, show: Callable[[int], str] = str) -> Type:
    size = bits // 8

    def set_number(parameter: Parameter, value: bytes | None, environment: Environment) -> None:
        number = parse_number(value or b"", bits, signed)
        environment.write(parameter.arg, number.to_bytes(size, "little", signed=signed))

    def get_number(parameter: Parameter, environment: Environment) -> bytes:
        number = int.from_bytes(environment.read(parameter.arg, size), "little", signed=signed)
        return f"{show(number)}\n".encode()

    return Type(set_number, get_number)


def _truth(value: bytes | None) -> bool:
    return parse_bool(b"1" if value is None else value)


def _set_bool(parameter: Parameter, value: bytes | None, environment: Environment) -> None:
    environment.write(parameter.arg, bytes([_truth(value)]))


def _set_bool_enable_only(parameter: Parameter, value: bytes | None, environment: Environment) -> None:
    wanted = _truth(value)
    if not wanted and environment.read(parameter.arg, 1) != b"\0":
        raise Errno(errno.EROFS)
    if wanted:
        environment.write(parameter.arg, b"\1")


def _set_invbool(parameter: Parameter, value: bytes | None, environment: Environment) -> None:
    environment.write(parameter.arg, bytes([not _truth(value)]))


def _set_bint(parameter: Parameter, value: bytes | None, environment: Environment) -> None:
    environment.write(parameter.arg, int(_truth(value)).to_bytes(4, "little"))


def _get_bool(parameter: Parameter, environment: Environment) -> bytes:
    return b"N\n" if environment.read(parameter.arg, 1) == b"\0" else b"Y\n"


def _get_invbool(parameter: Parameter, environment: Environment) -> bytes:
    return b"Y\n" if environment.read(parameter.arg, 1) == b"\0" else b"N\n"


def _set_charp(parameter: Parameter, value: bytes | None, environment: Environment) -> None:
    text = value or b""
    if len(text) > CHARP_MAX:
        environment.log(3, f"{parameter.name}: string parameter too long")
        raise Errno(errno.ENOSPC)
    copy = environment.duplicate(text)
    if not copy:
        raise Errno(errno.ENOMEM)
    environment.release(_pointer(parameter.arg, environment))
    environment.write(parameter.arg, copy.to_bytes(8, "little"))


def _get_charp(parameter: Parameter, environment: Environment) -> bytes:
    address = _pointer(parameter.arg, environment)
    return _line(b"(null)" if not address else read_string(environment, address))


def _pointer(address: int, environment: Environment) -> int:
    return int.from_bytes(environment.read(address, 8), "little")


def _set_string(parameter: Parameter, value: bytes | None, environment: Environment) -> None:
    text, room = value or b"", environment.string_at(parameter.arg)
    if len(text) >= room.maxlen:
        environment.log(3, f"{parameter.name}: string doesn't fit in {room.maxlen - 1} chars.")
        raise Errno(errno.ENOSPC)
    environment.write(room.address, text + b"\0")


def _get_string(parameter: Parameter, environment: Environment) -> bytes:
    return _line(read_string(environment, environment.string_at(parameter.arg).address))


def _line(text: bytes) -> bytes:
    return (text + b"\n")[: PAGE_SIZE - 1]


def read_string(environment: Environment, address: int) -> bytes:
    """The string at ``address``, as far as one page can show it; never reads a page that it need not."""
    text = b""
    while len(text) < PAGE_SIZE:
        piece = environment.read(address + len(text), 64 - (address + len(text)) % 64)
        end = piece.find(0)
        if end >= 0:
            return text + piece[:end]
        text += piece
    return text


def _set_array(parameter: Parameter, value: bytes | None, environment: Environment) -> None:
    array = environment.array_at(parameter.arg)
    element_type = TYPES[array.element_type]

    def note(count: int) -> None:
        if array.count_at:
            environment.write(array.count_at, count.to_bytes(4, "little"))

    note(0)
    for index, text in enumerate((value or b"").split(b",")):
        if index == array.maximum:
            environment.log(3, f"{parameter.name}: can only take {array.maximum} arguments")
            raise Errno(errno.EINVAL)
        element_type.set(_element(parameter, array, index), text, environment)
        note(index + 1)


def _get_array(parameter: Parameter, environment: Environment) -> bytes:
    array = environment.array_at(parameter.arg)
    count = int.from_bytes(environment.read(array.count_at, 4), "little") if array.count_at else array.maximum
    get = TYPES[array.element_type].get
    shown = [get(_element(parameter, array, index), environment) for index in range(count)]
    return b",".join(text.removesuffix(b"\n") for text in shown) + (b"\n" if shown else b"")


def _element(parameter: Parameter, array: ArrayArg, index: int) -> Parameter:
    return Parameter(parameter.name, array.address + index * array.element_size, array.element_type)


def release_parameters(parameters: Sequence[Parameter], environment: Environment) -> None:
    """Give back the strings that were made for a module's parameters, when it goes."""
    for parameter in parameters:
        if parameter.type == "charp":
            environment.release(_pointer(parameter.arg, environment))
        elif parameter.type == "array" and (array := environment.array_at(parameter.arg)).element_type == "charp":
            count = int.from_bytes(environment.read(array.count_at, 4), "little") if array.count_at else array.maximum
            for index in range(count):
                environment.release(_pointer(array.address + index * array.element_size, environment))


TYPES: Final[dict[str, Type]] = {
    "byte": _number(8, False),
    "short": _number(16, True),
    "ushort": _number(16, False),
    "int": _number(32, True),
    "uint": _number(32, False),
    "long": _number(64, True),
    "ulong": _number(64, False),
    "ullong": _number(64, False),
    "hexint": _number(32, False, "{:#08x}".format),
    "charp": Type(_set_charp, _get_charp),
    "bool": Type(_set_bool, _get_bool, takes_no_value=True),
    "bool_enable_only": Type(_set_bool_enable_only, _get_bool, takes_no_value=True),
    "invbool": Type(_set_invbool, _get_invbool),
    "bint": Type(_set_bint, _number(32, True).get, takes_no_value=True),
    "string": Type(_set_string, _get_string),
    "array": Type(_set_array, _get_array),
}
"""Standard types by the end of their operations' name: ``param_ops_int``; ``array`` is ``param_array_ops``."""

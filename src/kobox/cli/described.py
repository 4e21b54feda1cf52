"""What each command accepts, read off its own parser or table: for manual pages, completion and tests."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from types import ModuleType

from kobox.cli.options import Operand, Option, Usage
from kobox.cli.table import COMMANDS


def usage_of(name: str) -> Usage:
    """A command's own record; ``KeyError`` when there is none of that name."""
    from kobox.cli.kmod_options import KMOD_USAGES

    if name in KMOD_USAGES:
        return KMOD_USAGES[name]
    command = importlib.import_module(f"kobox.cli.{COMMANDS[name].module}")
    return _of_parser(parser_of(name, command), name, COMMANDS[name].help)


def parser_of(name: str, command: ModuleType) -> argparse.ArgumentParser:
    """The parser of a command that has ``add_arguments``."""
    parser = argparse.ArgumentParser(
        prog=f"kobox {name}",
        description=COMMANDS[name].help,
        epilog=getattr(command, "EPILOG", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser


def _of_parser(parser: argparse.ArgumentParser, name: str, help: str) -> Usage:
    actions = [action for action in parser._actions if action.help is not argparse.SUPPRESS]
    verbs = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    return Usage(
        name,
        help,
        (_line_of(parser, name),),
        tuple(_option_of(action, parser) for action in actions if action.option_strings),
        tuple(_operand_of(action) for action in actions if not action.option_strings and action not in verbs),
        tuple(verb for action in verbs for verb in _verbs_of(action, name)),
        "" if parser.description == help else parser.description or "",
        parser.epilog or "",
    )


def _line_of(parser: argparse.ArgumentParser, name: str) -> str:
    """argparse's own line, without its line breaks and the program."""
    text = " ".join(parser.format_usage().split())
    return text.removeprefix("usage: ").removeprefix(f"kobox {name}").strip()


def _verbs_of(action: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> Iterator[Usage]:
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
    for verb, parser in action.choices.items():
        yield _of_parser(parser, f"{name} {verb}", helps.get(verb, ""))


def _option_of(action: argparse.Action, parser: argparse.ArgumentParser) -> Option:
    takes = action.nargs != 0
    group = next((group.title for group in parser._action_groups if action in group._group_actions), "")
    return Option(
        tuple(sorted(action.option_strings, key=len)),
        _help_of(action),
        _argument_of(action) if takes else "",
        "" if group in ("options", None) else group,
        tuple(map(str, action.choices or ())),
        action.nargs if isinstance(action.nargs, int) and takes else 0 if action.nargs == "?" else 1,
    )


def _argument_of(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar:
        return action.metavar
    return f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()


def _operand_of(action: argparse.Action) -> Operand:
    many = action.nargs in ("*", "+", argparse.REMAINDER)
    return Operand(_argument_of(action), _help_of(action), many, tuple(map(str, action.choices or ())))


def _help_of(action: argparse.Action) -> str:
    return (action.help or "") % {"default": action.default, "prog": ""} if action.help else ""

"""Parses command lines into dataclasses with tyro; errors are one line.

Fields that are pairs of integers are sizes, written `512x640` or `512 640`.
"""

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
)

from data_pipelines.io.environment import program_name as program_name
from data_pipelines.io.names import escape_unencodable_output, printable

Flags = TypeVar("Flags")

_RULES = ConstructorRegistry()


class UsageError(ValueError):
    """The command line is invalid; the message is one line."""


def parse_flags(
    argv: Sequence[str] | None,
    default: Flags | type[Flags],
    *,
    prog: str,
    description: str = "",
) -> Flags:
    """Parses the command line of a program.

    Args:
        argv: arguments without the program's name; None: those of the process.
        default: a dataclass instance whose fields become flags with its values as
            defaults; or a dataclass type, if some fields are required; or a union of
            dataclass types, which become subcommands.
        prog: the program's name in the help text.
        description: the first lines of the help text.

    Raises:
        SystemExit: 0 after `--help`; 2 after an error, with one line on standard error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    escape_unencodable_output()
    is_instance = dataclasses.is_dataclass(default) and not isinstance(default, type)
    kind: Any = type(default) if is_instance else default
    kind = Annotated[kind, tyro.conf.OmitArgPrefixes]
    instance = default if is_instance else None
    try:
        return parse(kind, instance, arguments, prog, description)
    except UsageError as error:
        exit_with_error(f"{error}{_flag_hints(arguments, default)}")


def _flag_hints(arguments: Sequence[str], flags: Any) -> str:
    """Returns hints for flags of a run's config, such as `--data.size` for `--size`."""
    fields = getattr(flags, "__dataclass_fields__", {})
    renamed = {}
    for argument in arguments:
        flag = argument.partition("=")[0]
        group, _, leaf = flag.removeprefix("--").rpartition(".")
        if flag.startswith("--") and group and leaf.replace("-", "_") in fields:
            renamed[flag] = f"--{leaf}"
    return "".join(f"; {flag} is {name} here" for flag, name in renamed.items())


def exit_with_error(error: Exception | str) -> NoReturn:
    """Exits a command after a user's error: prints `error: ...`, exit status 2."""
    raise SystemExit(fail(error))


def fail(error: Exception | str) -> int:
    """Prints `error: ...` and returns 2, the exit status of a user's error."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        error = f"{where}{error.strerror}"
    print(f"error: {printable(error)}", file=sys.stderr)
    return 2


def parse(
    kind: Any, default: Any, arguments: list[str], prog: str, description: str
) -> Any:
    """Calls `tyro.cli`.

    Raises:
        UsageError: the command line is invalid.
    """
    output = io.StringIO()
    keywords: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(output):
            return tyro.cli(
                kind,
                args=arguments,
                prog=prog,
                description=description,
                registry=_RULES,
                **keywords,
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise UsageError(_one_line(output.getvalue())) from stop


def size_or(*words: str) -> PrimitiveConstructorSpec:
    """Returns the parser of a flag that is a size or one of some words.

    Usage: `size: Annotated[tuple[int, int] | str, size_or("stored")]`.
    """
    return PrimitiveConstructorSpec(
        nargs=(1, 2),
        metavar="|".join(["HxW", *words]),
        instance_from_str=lambda args: args[0] if args[0] in words else _size(args),
        is_instance=lambda value: value is None or value in words or len(value) == 2,
        str_from_instance=lambda value: [
            f"{value[0]}x{value[1]}" if isinstance(value, tuple) else str(value)
        ],
    )


@_RULES.primitive_rule
def _size_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    is_size = get_origin(info.type) is tuple and get_args(info.type) == (int, int)
    return size_or() if is_size else None


def _size(words: list[str]) -> tuple[int, int]:
    sides = words[0].split("x") if len(words) == 1 else words
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise ValueError(f"{' '.join(words)}: use HEIGHTxWIDTH, such as 512x640")
    return int(sides[0]), int(sides[1])


def _one_line(box: str) -> str:
    """Extracts the message, and suggested flags, from the box that tyro prints.

    The box has Unicode borders. If standard output is not UTF-8, the borders are dashes
    and the title is a separate section.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    sections = [""]
    for line in plain.splitlines():
        line = line.strip("│ ")
        if re.fullmatch("[─-]{4,}", line):
            sections.append("")
        elif line and line[0] not in "╭╰":
            sections[-1] = f"{sections[-1]} {line}".strip()
    message, *others = sections if "╭" in plain else sections[1:]
    for section in others:
        if section.startswith("Perhaps you meant"):
            suggested = dict.fromkeys(re.findall(r"--[\w.-]+", section))
            message += f"; did you mean {' or '.join(suggested)}?"
    return f"{message[:1].lower()}{message[1:]} (see --help)"

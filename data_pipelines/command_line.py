"""The one command line parser: a dataclass is a program's flags, errors are one line.

Sizes are `512x640` or `512 640`, wherever a field is a pair of integers.
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
    """A wrong command line, told in one line."""


def parse_flags(
    argv: Sequence[str] | None,
    default: Flags | type[Flags],
    *,
    prog: str,
    description: str = "",
) -> Flags:
    """Reads the command line of a program.

    Args:
        argv: arguments without the program's name; None for those of the process.
        default: a dataclass instance: its fields become flags, its values defaults. Or
            a dataclass with fields that must be given, or a union of such, each a
            command.
        prog: the program's name in the help text.
        description: the first lines of the help text.

    Raises:
        SystemExit: 0 after `--help`; 2 after a mistake, with one line on standard
            error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    escape_unencodable_output()
    given = dataclasses.is_dataclass(default) and not isinstance(default, type)
    kind: Any = type(default) if given else default
    kind = Annotated[kind, tyro.conf.OmitArgPrefixes]
    try:
        return parse(kind, default if given else None, arguments, prog, description)
    except UsageError as error:
        exit_with_error(f"{error}{_renamed(arguments, default)}")


def _renamed(arguments: Sequence[str], flags: Any) -> str:
    """Names the flags to use instead of those of a run's config, `--data.size`."""
    own = getattr(flags, "__dataclass_fields__", {})
    found = {}
    for argument in arguments:
        given = argument.partition("=")[0]
        group, _, leaf = given.removeprefix("--").rpartition(".")
        if given.startswith("--") and group and leaf.replace("-", "_") in own:
            found[given] = f"--{leaf}"
    return "".join(f"; {given} is {here} here" for given, here in found.items())


def exit_with_error(error: Exception | str) -> NoReturn:
    """Ends a command after a user's mistake: prints `error: ...`, exit status 2."""
    raise SystemExit(fail(error))


def fail(error: Exception | str) -> int:
    """Prints `error: ...`; returns 2, the exit status of a user's mistake."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        error = f"{where}{error.strerror}"
    print(f"error: {printable(error)}", file=sys.stderr)
    return 2


def parse(
    kind: Any, default: Any, arguments: list[str], prog: str, description: str
) -> Any:
    """`tyro.cli`, with its errors as a `UsageError` of one line."""
    said = io.StringIO()
    keywords: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
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
        raise UsageError(_one_line(said.getvalue())) from stop


def size_or(*words: str) -> PrimitiveConstructorSpec:
    """Of a flag that is a size or one of some words: `Annotated[..., size_or("x")]`."""
    return PrimitiveConstructorSpec(
        nargs=(1, 2),
        metavar="|".join(["HxW", *words]),
        instance_from_str=lambda given: given[0] if given[0] in words else _size(given),
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
    """The message inside tyro's box, with the flags that it suggests.

    The box is drawn with lines, or with dashes and the title as a section of its own if
    standard output is not UTF-8.
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

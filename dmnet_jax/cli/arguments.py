"""Command lines: a recipe, typed overrides, and errors of one line.

    python train.py --config configs/endovis17.py --optim.lr 3e-4 --data.size 256 320

Every field of `Config` is a flag, with `-` or `_`; a program adds its own flags. This
module does not import JAX, so `--help` is fast.
"""

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

from data_pipelines.io.environment import program as program
from data_pipelines.io.names import escape_what_streams_cannot_hold, shown
from dmnet_jax.config import Config, load_config, to_json, validate
from dmnet_jax.config.serialization import ConfigError

Flags = TypeVar("Flags")


@dataclasses.dataclass(frozen=True)
class _Common:
    """Flags of every command.

    Attributes:
        config: Recipe: the name of a shipped one (endovis17), a Python file with
            get_config(), or a saved JSON file.
        print_config: Print the resulting configuration as JSON and exit.
    """

    config: str = ""
    print_config: bool = False


@dataclasses.dataclass(frozen=True)
class _NoFlags:
    """A program without flags of its own."""


def parse_config(
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str = "",
    default: Config | None = None,
) -> Config:
    """`parse_command` for a program without flags of its own."""
    return parse_command(
        argv, _NoFlags(), prog=prog, description=description, default=default
    )[0]


def parse_command(
    argv: Sequence[str] | None,
    flags: Flags,
    *,
    prog: str,
    description: str = "",
    default: Config | None = None,
) -> tuple[Config, Flags]:
    """Reads a command line.

    Args:
        argv: arguments without the program's name; None for those of the process.
        flags: a dataclass instance; its fields become flags without a prefix, and its
            values their defaults.
        prog: the program's name in the help text.
        description: the first lines of the help text.
        default: the configuration to change if `--config` is not given; None for the
            paper's values.

    Returns:
        The validated config and the program's flags.

    Raises:
        SystemExit: 0 after `--help` or `--print-config`; 2 after a mistake, with one
            line on standard error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    escape_what_streams_cannot_hold()
    try:
        # The recipe first: its values are the defaults that the help shows.
        path = _config_path(arguments)
        base = validate(load_config(path) if path else default or Config())
        config, common, flags = _parse(arguments, base, flags, prog, description)
        config = validate(config)
    except ConfigError as error:
        exit_with_error(error)
    if common.print_config:
        print(to_json(config))
        raise SystemExit(0)
    return config, flags


def parse_flags(
    argv: Sequence[str] | None, default: Flags, *, prog: str, description: str = ""
) -> Flags:
    """Reads the command line of a program that takes no `Config`.

    Args:
        argv: arguments without the program's name; None for those of the process.
        default: a dataclass instance; its fields become flags, its values defaults.
        prog: the program's name in the help text.
        description: the first lines of the help text.

    Raises:
        SystemExit: 0 after `--help`; 2 after a mistake, with one line on standard
            error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    escape_what_streams_cannot_hold()
    kind = Annotated[type(default), tyro.conf.OmitArgPrefixes]
    try:
        return _quiet_cli(kind, default, arguments, prog, description)
    except ConfigError as error:
        exit_with_error(f"{error}{_renamed(arguments, default)}")


def _renamed(arguments: Sequence[str], flags: Any) -> str:
    """Names the flags to use instead of those of `Config` that this program lacks."""
    own = {item.name for item in dataclasses.fields(flags)}
    found = {}
    for argument in arguments:
        given = argument.partition("=")[0]
        group, _, leaf = given.removeprefix("--").rpartition(".")
        if given.startswith("--") and group and leaf.replace("-", "_") in own:
            found[given] = f"--{leaf}"
    return "".join(f"; {given} is {here} here" for given, here in found.items())


def exit_with_error(error: Exception | str) -> NoReturn:
    """Ends a command after a user's mistake: prints `error: ...`, exit status 2."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        error = f"{where}{error.strerror}"
    print(f"error: {shown(error)}", file=sys.stderr)
    raise SystemExit(2)


def _config_path(arguments: Sequence[str]) -> str:
    path = ""
    for i, argument in enumerate(arguments):
        if argument.startswith("--config="):
            path = argument.removeprefix("--config=")
        elif argument == "--config":
            path = arguments[i + 1] if i + 1 < len(arguments) else ""
    return path


def _parse(
    arguments: list[str], base: Config, flags: Any, prog: str, description: str
) -> tuple[Config, _Common, Any]:
    unnamed = tyro.conf.arg(name="")
    everything = dataclasses.make_dataclass(
        "Arguments",
        [
            ("common", Annotated[_Common, unnamed, tyro.conf.FlagCreatePairsOff]),
            ("flags", Annotated[type(flags), unnamed]),
            ("fields", Annotated[Config, unnamed]),
        ],
    )
    parsed = _quiet_cli(
        everything, everything(_Common(), flags, base), arguments, prog, description
    )
    return parsed.fields, parsed.common, parsed.flags


def _quiet_cli(
    kind: Any, default: Any, arguments: list[str], prog: str, description: str
) -> Any:
    """`tyro.cli`, with its errors as a ConfigError of one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                default=default,
                args=arguments,
                prog=prog,
                description=description,
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise ConfigError(_one_line(said.getvalue())) from stop


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

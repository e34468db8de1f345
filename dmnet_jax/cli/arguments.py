"""Command lines: a recipe, typed overrides, and one-line errors.

    python train.py --config configs/endovis17.py --optim.lr 3e-4 --data.size 256 320

Every field of `Config` is a flag, with `-` or `_`; a program adds its own flags. This
module does not import JAX, so `--help` is fast.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from data_pipelines.command_line import Flags, UsageError, parse
from data_pipelines.command_line import exit_with_error as exit_with_error
from data_pipelines.command_line import parse_flags as parse_flags
from data_pipelines.command_line import program_name as program_name
from data_pipelines.io.names import escape_unencodable_output
from dmnet_jax.config import Config, load_config, to_json, validate
from dmnet_jax.config.serialization import ConfigError


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
    """Flags of a program that adds none."""


def parse_config(
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str = "",
    default: Config | None = None,
) -> Config:
    """Like `parse_command`, for a program that adds no flags."""
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
    """Parses a command line.

    Args:
        argv: arguments without the program name; None for those of the process.
        flags: a dataclass instance; its fields become flags without a prefix, with its
            values as defaults.
        prog: name of the program in the help text.
        description: first lines of the help text.
        default: configuration to override if `--config` is not set; None for the
            paper's values.

    Returns:
        The validated config and the program's flags.

    Raises:
        SystemExit: 0 after `--help` or `--print-config`; 2 after an error, with one
            line on standard error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    escape_unencodable_output()
    try:
        # The recipe is loaded first, because the help shows its values as defaults.
        path = _config_path(arguments)
        base = validate(load_config(path) if path else default or Config())
        config, common, flags = _parse(arguments, base, flags, prog, description)
        config = validate(config)
    except (ConfigError, UsageError) as error:
        exit_with_error(error)
    if common.print_config:
        print(to_json(config))
        raise SystemExit(0)
    return config, flags


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
    defaults = everything(_Common(), flags, base)
    parsed = parse(everything, defaults, arguments, prog, description)
    return parsed.fields, parsed.common, parsed.flags

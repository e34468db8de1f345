"""Loads recipes: shipped ones by name, Python files with `get_config()`, saved JSON.

    python train.py --config endovis17
    python train.py --config configs/endovis17.py

The shipped recipes are the files in configs/; a wheel contains a copy. A recipe may
start from another one: `load_config("endovis17")`.
"""

import os
import runpy
from pathlib import Path

from dmnet_jax.config.schema import Config, from_json
from dmnet_jax.config.serialization import ConfigError


def shipped_recipes() -> dict[str, Path]:
    """Returns the files of the shipped recipes by name."""
    packaged = Path(__file__).parents[1] / "_recipes"  # in a wheel; see setup.py
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def find_recipe(recipe: str | os.PathLike[str]) -> Path:
    """Finds the file of a recipe.

    Args:
        recipe: name of a shipped recipe, without folder and suffix, or a path.

    Raises:
        ConfigError: there is no such recipe; lists the shipped ones.
    """
    path, shipped = Path(recipe), shipped_recipes()
    if path.name == str(recipe) and not path.suffix:
        if path.name not in shipped:
            raise ConfigError(
                f"{recipe}: no such recipe; the shipped ones are {', '.join(shipped)}; "
                "for your own recipe, pass a path that ends in .py or .json"
            )
        return shipped[path.name]
    if path.is_file():
        return path
    hint = f"; --config {path.stem} is shipped" if path.stem in shipped else ""
    raise ConfigError(f"{recipe}: no such config file{hint}")


def load_config(path: str | os.PathLike[str]) -> Config:
    """Loads the config of a recipe.

    Args:
        path: name of a shipped recipe, a Python file with `get_config()`, or a saved
            JSON file. Python files are executed: load only recipes you trust.

    Raises:
        ConfigError: the recipe is missing or invalid; names the file and the fault.
    """
    file = find_recipe(path)
    if file.suffix == ".json":
        try:
            return from_json(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            raise ConfigError(f"{path}: {error}") from error
    if file.suffix != ".py":
        raise ConfigError(f"{path}: a recipe is a .py file, or a saved .json")
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path}: cannot be run: {_describe(error, file)}") from error
    if not callable(get_config):
        raise ConfigError(f"{path}: has no get_config(); a recipe must define it")
    try:
        config = get_config()
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{path}: get_config() failed: {_describe(error, file)}"
        ) from error
    if not isinstance(config, Config):
        kind = type(config).__name__
        raise ConfigError(f"{path}: get_config() returned {kind}, not a Config")
    return config


def _describe(error: BaseException, file: Path) -> str:
    """Formats an error as one line, with its line number in `file`."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"line {line}: {text}" if line else text

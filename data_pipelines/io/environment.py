"""How a command was called, what else it needs, and how to install that."""

import multiprocessing
import os
import sys
import threading
from pathlib import Path
from types import TracebackType

_COMMANDS = ("-m", "train.py", "evaluate.py")
"""`sys.argv[0]` of a command while its packages are imported; `python -m` has no name
before its module is found."""

_ROOT = Path(__file__).parents[2]
"""The checkout, or the site-packages that a wheel was installed into."""


def install_command(extra: str) -> str:
    """The command that installs an extra of pyproject.toml.

    It is run in the checkout, or in the folder of the wheel: the project is not on a
    package index, so its name alone would not be found.
    """
    if (_ROOT / "pyproject.toml").is_file():
        return f'pip install -e ".[{extra}]"'
    return f'pip install "dmnet_jax-VERSION-py3-none-any.whl[{extra}]"'


def program_name(script: str) -> str:
    """How the user called the command: `script`, or an installed `dmnet-...`."""
    name = Path(sys.argv[0]).name.removesuffix(".exe") if sys.argv else ""
    return name if name.startswith("dmnet-") else script


def end_with_parent() -> None:
    """In a worker process: ends it once the process that started it is gone.

    A killed parent closes no queue, so a pool's workers would wait for work forever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def report_missing_modules() -> None:
    """Makes a command that lacks a module end with one line instead of a traceback.

    Most often the environment is not activated. Programs that import the project as a
    library are not affected.
    """
    if sys.argv and Path(sys.argv[0]).name in _COMMANDS:
        sys.excepthook = _tell


def _tell(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not isinstance(error, ModuleNotFoundError) or _is_ours(error.name or ""):
        sys.__excepthook__(kind, error, trace)
        return
    print(
        f"error: {error.name} is not installed for {sys.executable}; run the command "
        "with .venv/bin/python, or activate the environment first (README, Quick "
        "start)",
        file=sys.stderr,
    )


def _is_ours(name: str) -> bool:
    return name.split(".")[0] in ("", "data_pipelines", "dmnet_jax", "configs")

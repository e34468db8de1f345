"""The process's environment: command names, optional dependencies, workers."""

import multiprocessing
import os
import sys
import threading
from pathlib import Path
from types import TracebackType

_COMMANDS = ("-m", "train.py", "evaluate.py")
"""`sys.argv[0]` of a command while its packages are imported.

It is "-m" for `python -m` until the module is found.
"""

_ROOT = Path(__file__).parents[2]
"""The checkout, or the site-packages folder that contains the installed wheel."""


def install_command(extra: str) -> str:
    """Returns the command that installs an extra of pyproject.toml.

    The project is not on a package index, so the command names the checkout or the
    wheel, in whose folder it must be run.
    """
    if (_ROOT / "pyproject.toml").is_file():
        return f'pip install -e ".[{extra}]"'
    return f'pip install "dmnet_jax-VERSION-py3-none-any.whl[{extra}]"'


def program_name(script: str) -> str:
    """Returns the name of the installed command (`dmnet-...`), or else `script`."""
    name = Path(sys.argv[0]).name.removesuffix(".exe") if sys.argv else ""
    return name if name.startswith("dmnet-") else script


def end_with_parent() -> None:
    """Makes a worker process exit when its parent process exits.

    A killed parent does not close its queues, so the workers of a pool would wait for
    work forever.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def report_missing_modules() -> None:
    """Makes commands report a missing module in one line instead of a traceback.

    The usual cause is an environment that is not activated. Programs that import the
    project as a library are not affected.
    """
    if sys.argv and Path(sys.argv[0]).name in _COMMANDS:
        sys.excepthook = _report


def _report(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not isinstance(error, ModuleNotFoundError) or _is_internal(error.name or ""):
        sys.__excepthook__(kind, error, trace)
        return
    print(
        f"error: {error.name} is not installed for {sys.executable}; run the command "
        "with .venv/bin/python, or activate the environment first (README, Quick "
        "start)",
        file=sys.stderr,
    )


def _is_internal(name: str) -> bool:
    return name.split(".")[0] in ("", "data_pipelines", "dmnet_jax", "configs")

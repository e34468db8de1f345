"""Writes the report of a benchmark."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.io.files import make_folder, write_text


def save_report(
    folder: Path, name: str, result: Mapping[str, Any], markdown: str
) -> None:
    """Writes `NAME.json` and `NAME.md`; creates the folder if it is missing.

    Raises:
        OSError: a file cannot be written; names it.
    """
    make_folder(folder)
    write_text(folder / f"{name}.json", json.dumps(result, indent=1) + "\n")
    write_text(folder / f"{name}.md", markdown + "\n")

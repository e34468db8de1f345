"""The datasets. Each package here exports its description as `DATASET`."""

from importlib import import_module

from data_pipelines.sources.dataset import (
    ALL,
    Dataset,
    Division,
    Request,
    Selection,
    check_division,
)

DATASETS: dict[str, Dataset] = {
    name: import_module(f"{__name__}.{name}").DATASET
    for name in (
        "folder",
        "synthetic",
        "rendered",
        "endovis15",
        "endovis17",
        "endovis18",
        "camvid",
    )
}
"""Datasets by the name of their package, which configs and commands use."""

NAMES = tuple(DATASETS)
TASKS = tuple(dict.fromkeys(task for d in DATASETS.values() for task in d.tasks))
SPLITS = tuple(
    dict.fromkeys(
        name for d in DATASETS.values() if not d.folds for name in d.divisions(())
    )
)
"""Names of all divisions that are not folds."""

PREPARED = tuple(name for name, d in DATASETS.items() if not d.rendered)
"""Names of the datasets that `data_pipelines.prepare` supports."""

__all__ = [
    "ALL",
    "DATASETS",
    "NAMES",
    "PREPARED",
    "SPLITS",
    "TASKS",
    "Selection",
    "Dataset",
    "Division",
    "Request",
    "check_division",
]

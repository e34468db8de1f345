"""The datasets, one package each, which exports its description as `DATASET`."""

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
"""By name in configs and on command lines: the package of that name, one a line."""

NAMES = tuple(DATASETS)
TASKS = tuple(dict.fromkeys(t for one in DATASETS.values() for t in one.tasks))
SPLITS = tuple(
    dict.fromkeys(
        name for one in DATASETS.values() if not one.folds for name in one.divisions(())
    )
)
"""Names of the divisions that are no folds."""

PREPARED = tuple(name for name, one in DATASETS.items() if not one.rendered)
"""Those that `data_pipelines.prepare` packs."""

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

"""Opening of prepared and original datasets on disk."""

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.frames import DataError, FrameSource
from data_pipelines.prepared import MANIFEST, open_prepared
from data_pipelines.sources import DATASETS, Dataset, Request, Selection
from dmnet_jax.config import DataConfig


def missing_names_error(data: DataConfig, known: Sequence[str]) -> DataError:
    """Returns the error for a config that must name its videos.

    Args:
        data: the config.
        known: names of the videos in the dataset.
    """
    need = "name both" if data.train or data.val else "must name the videos"
    return DataError([f"data.train and data.val: {need}; there are {', '.join(known)}"])


def required_names(
    data: DataConfig,
) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Returns the names of training and validation videos; None if not known yet."""
    if data.train and data.val:
        return data.train, data.val
    dataset = DATASETS[data.dataset]
    root = Path(data.root or dataset.root)
    known = dataset.names(root, Request(dataset.name)) if root.is_dir() else []
    _, division = dataset.division(data.fold, data.split, known)
    if division is None or not (division.train and division.val):
        return None, None
    return division.train, division.val


def open_root(
    data: DataConfig, root: str, subset: str, names: Sequence[str] | None
) -> FrameSource:
    """Opens the folder of a dataset, prepared or original.

    Args:
        data: config of the dataset.
        root: the folder.
        subset: "train" or "test".
        names: names of the videos that are needed; None for all.

    Raises:
        DataError: the folder is invalid, or was prepared for another config.
    """
    dataset = DATASETS[data.dataset]
    request = Request(
        dataset=dataset.name,
        task=data.task if dataset.tasks else "",
        masks=dataset.masks if dataset.published else data.masks,
        subset=subset,
        mask_values=data.mask_values,
    )
    if dataset.endless or not (Path(root) / MANIFEST).is_file():
        return _open_raw(data, dataset, Path(root), request, names)
    prepared = open_prepared(root)
    mask_values = prepared.manifest.request.get("mask_values", "class")
    if data.mask_values not in ("class", mask_values):
        raise DataError(
            [
                f"{root}: prepared with --mask-values {mask_values}; data.mask_values "
                f"is {data.mask_values}: leave it out or prepare the data again"
            ]
        )
    for field in ("dataset", "task"):
        actual, expected = prepared.manifest.request.get(field), getattr(request, field)
        if actual != expected:
            raise DataError(
                [
                    f"{root}: prepared with {field} {actual or 'none'}; data.{field} "
                    f"is {expected or 'none'}: change it or prepare the data for it"
                ]
            )
    return prepared


def _open_raw(
    data: DataConfig,
    dataset: Dataset,
    root: Path,
    request: Request,
    names: Sequence[str] | None,
) -> FrameSource:
    """Opens the named videos; all videos if names are unknown or some are missing."""
    known = dataset.names(root, request) if root.is_dir() and names else []
    present = tuple(dict.fromkeys(name for name in names or () if name in known))
    missing = [name for name in names or () if name not in known]
    # If videos of a folder are missing, the error below lists those that exist. For
    # other datasets, all videos are opened, and `split_names` reports the missing ones.
    is_folder = bool(dataset.masks)
    if not is_folder and missing:
        present = ()
    chosen = Selection(present or None, data.num_classes, data.size, data.synthetic)
    source = None
    if present or not is_folder or not known:
        source = dataset.open(root, request, chosen)
    if source is None or (missing and is_folder):
        raise DataError(
            [
                f"{root}: no video {', '.join(map(repr, missing))}; the videos are "
                f"{', '.join(known)}"
            ]
        )
    return source

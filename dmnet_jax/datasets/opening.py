"""Opens of a dataset on disk what a run needs, prepared or as it was distributed."""

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.frames import DataError, FrameSource
from data_pipelines.prepared import MANIFEST, open_prepared
from data_pipelines.sources import DATASETS, Dataset, Request, Selection
from dmnet_jax.config import DataConfig


def unnamed(data: DataConfig, known: Sequence[str]) -> DataError:
    """Of the videos there are, the config does not say which train and validate."""
    need = "name both" if data.train or data.val else "must name the videos"
    return DataError([f"data.train and data.val: {need}; there are {', '.join(known)}"])


def needed(
    data: DataConfig,
) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Names of the training and the validation videos, where the config says them."""
    if data.train and data.val:
        return data.train, data.val
    dataset = DATASETS[data.dataset]
    root = Path(data.root or dataset.root)
    known = dataset.names(root, Request(dataset.name)) if root.is_dir() else []
    _, division = dataset.division(data.fold, data.split, known)
    if division is None or not (division.train and division.val):
        return None, None
    return division.train, division.val


def opened(
    data: DataConfig, root: str, subset: str, names: Sequence[str] | None
) -> FrameSource:
    dataset = DATASETS[data.dataset]
    request = Request(
        dataset=dataset.name,
        task=data.task if dataset.tasks else "",
        masks=dataset.masks if dataset.published else data.masks,
        subset=subset,
        mask_values=data.mask_values,
    )
    if dataset.endless or not (Path(root) / MANIFEST).is_file():
        return _opened_raw(data, dataset, Path(root), request, names)
    prepared = open_prepared(root)
    made = prepared.manifest.request.get("mask_values", "class")
    if data.mask_values not in ("class", made):
        raise DataError(
            [
                f"{root}: prepared with --mask-values {made}; data.mask_values is "
                f"{data.mask_values}: leave it out or prepare the data anew"
            ]
        )
    for field in ("dataset", "task"):
        found, wanted = prepared.manifest.request.get(field), getattr(request, field)
        if found != wanted:
            raise DataError(
                [
                    f"{root}: prepared with {field} {found or 'none'}; data.{field} "
                    f"is {wanted or 'none'}: change it or prepare the data for it"
                ]
            )
    return prepared


def _opened_raw(
    data: DataConfig,
    dataset: Dataset,
    root: Path,
    request: Request,
    names: Sequence[str] | None,
) -> FrameSource:
    """Opens what is needed, or all where that is not known or not all there."""
    known = dataset.names(root, request) if root.is_dir() and names else []
    there = tuple(dict.fromkeys(name for name in names or () if name in known))
    missing = [name for name in names or () if name not in known]
    own = bool(dataset.masks)
    if not own and missing:
        there = ()  # all are opened, and what lacks them tells which there are
    chosen = Selection(there or None, data.num_classes, data.size, data.synthetic)
    source = None
    if there or not own or not known:
        source = dataset.open(root, request, chosen)
    if source is None or (missing and own):
        raise DataError(
            [
                f"{root}: no video {', '.join(map(repr, missing))}; the videos are "
                f"{', '.join(known)}"
            ]
        )
    return source

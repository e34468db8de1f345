"""Opens of a dataset on disk what a run needs, prepared or as it was distributed."""

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.frames import DataError, FrameSource
from data_pipelines.prepare import DATASETS, Chosen, Request
from data_pipelines.prepare.layouts import OWN, Layout
from data_pipelines.prepared import MANIFEST, open_prepared
from data_pipelines.sources.splits import divisions
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
    if data.dataset == "camvid":
        return ["train_"], ["val_"]
    name = {"endovis17": f"fold {data.fold}", "endovis18": data.split}
    division = divisions(data.dataset).get(name.get(data.dataset, ""))
    return (None, None) if division is None else (division.train, division.val)


def opened(
    data: DataConfig, root: str, subset: str, names: Sequence[str] | None
) -> FrameSource:
    # The synthetic set is written as EndoVis17 is.
    dataset = "endovis17" if data.dataset == "synthetic" else data.dataset
    layout = DATASETS[dataset]
    request = Request(
        dataset=dataset,
        task=data.task if layout.tasks else "",
        masks=data.masks if dataset == "folder" else layout.masks,
        subset=subset,
        mask_values=data.mask_values,
    )
    if not (Path(root) / MANIFEST).is_file():
        return _opened_raw(data, layout, Path(root), request, names)
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
    layout: Layout,
    root: Path,
    request: Request,
    names: Sequence[str] | None,
) -> FrameSource:
    """Opens what is needed, or all where that is not known or not all there."""
    if names and data.dataset == "camvid":  # is opened by splits, see its layout
        names = [f"{name.partition('_')[0]}_" for name in names]
    known = layout.names(root, request) if root.is_dir() and names else []
    there = tuple(dict.fromkeys(name for name in names or () if name in known))
    missing = [name for name in names or () if name not in known]
    if data.dataset not in OWN and missing:
        there = ()  # all are opened, and what lacks them tells which there are
    chosen, source = Chosen(there or None, data.num_classes), None
    if there or data.dataset not in OWN or not known:
        source = layout.open(root, request, chosen)
    if source is None or (missing and data.dataset in OWN):
        raise DataError(
            [
                f"{root}: no video {', '.join(map(repr, missing))}; the videos are "
                f"{', '.join(known)}"
            ]
        )
    return source

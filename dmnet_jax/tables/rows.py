"""The rows of the paper's tables: which network, and what the paper prints."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dmnet_jax.config import Config

Name = Literal["table1", "table2a", "table2b"]


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        key: short name, of its runs and for `--methods`.
        method: as it is shown.
        model: what it changes in `config.model`.
        scores: the paper's (mDice, mIoU) in per cent by dataset; None where not given.
        parameters: the paper's, in millions.
        operations: the paper's "FLOPS", in 10^9.
        milliseconds: the paper's, of a frame on one TITAN RTX.
        fps: the paper's.
    """

    key: str
    method: str
    model: Mapping[str, Any]
    scores: Mapping[str, tuple[float | None, float]] = field(default_factory=dict)
    parameters: float | None = None
    operations: float | None = None
    milliseconds: float | None = None
    fps: float | None = None


def _dmnet(local: str, global_memory: bool) -> dict[str, Any]:
    return {"name": "dmnet", "local": local, "global_memory": global_memory}


def _miou(score: float) -> dict[str, tuple[None, float]]:
    return {"endovis17": (None, score)}


TABLES: dict[Name, tuple[Row, ...]] = {
    "table1": (
        Row(
            "ternausnet16",
            "TernausNet-16",
            {"name": "ternausnet16"},
            {"endovis17": (44.95, 33.78), "endovis18": (61.78, 50.25)},
            36.92,
            275.45,
            58.32,
            17,
        ),
        Row(
            "tapnet11",
            "MF-TAPNet (TAPNet-11)",
            {"name": "tapnet11"},
            {"endovis17": (48.01, 36.62)},
        ),
        Row(
            "paanet_style",
            "PAANet-style",
            {"name": "paanet_style"},
            {"endovis17": (56.43, 49.64), "endovis18": (75.01, 64.88)},
            21.86,
            60.34,
            38.20,
            26,
        ),
        Row(
            "lwanet",
            "LWANet",
            {"name": "lwanet"},
            {"endovis17": (49.79, 43.23), "endovis18": (71.73, 61.06)},
            2.25,
            2.77,
            13.21,
            76,
        ),
        Row(
            "td2_psp18",
            "TDNet (TD2-PSP18)",
            {"name": "td2_psp18"},
            {"endovis17": (54.64, 49.24), "endovis18": (76.22, 66.30)},
            21.23,
            47.60,
            22.23,
            45,
        ),
        Row(
            "dmnet",
            "DMNet",
            _dmnet("ela", True),
            {"endovis17": (61.03, 53.89), "endovis18": (77.53, 67.50)},
            4.38,
            11.53,
            26.37,
            38,
        ),
    ),
    "table2a": (
        Row("base", "base", _dmnet("none", False), _miou(46.51), None, 10.21),
        Row("ela", "+ ELA", _dmnet("ela", False), _miou(52.25), None, 10.93),
        Row("aga", "+ AGA", _dmnet("none", True), _miou(51.64), None, 10.77),
        Row("dmnet", "+ ELA + AGA", _dmnet("ela", True), _miou(53.89), None, 11.53),
    ),
    "table2b": (
        Row("nl", "NL", _dmnet("nl", False), _miou(48.03), 6.40, 11.82),
        Row("clstm", "CLSTM", _dmnet("clstm", False), _miou(53.07), 7.93, 17.68),
        Row("blstm", "BLSTM", _dmnet("blstm", False), _miou(50.14), 3.65, 10.84),
        Row("ela", "ELA", _dmnet("ela", False), _miou(52.25), 4.05, 10.93),
    ),
}

# Whose encoder starts from which of torchvision's networks.
CLASSIFIERS = {
    "ternausnet11": "vgg11",
    "ternausnet16": "vgg16",
    "tapnet11": "vgg11",
    "linknet34": "resnet34",
    "raunet": "resnet34",
    "paanet_style": "resnet34",
    "td2_psp18": "resnet18",
    "td4_psp18": "resnet18",
}

# Networks that the paper does not have, for `--methods`.
FURTHER = (
    Row("ternausnet11", "TernausNet-11", {"name": "ternausnet11"}),
    Row("linknet34", "LinkNet-34", {"name": "linknet34"}),
    Row("raunet", "RAUNet", {"name": "raunet"}),
    Row("td4_psp18", "TDNet (TD4-PSP18)", {"name": "td4_psp18"}),
)


def encoder_start(config: Config) -> str:
    """ "ImageNet" or "random": from what a cell's encoder starts."""
    pretrained = config.model.pretrained
    shipped = pretrained == "imagenet" and config.model.name not in CLASSIFIERS
    return "ImageNet" if shipped or pretrained not in ("imagenet", "none") else "random"


def chosen(table: Name, methods: tuple[str, ...]) -> tuple[Row, ...]:
    """The rows of a table, all or those named.

    Raises:
        ValueError: it has no row of that name.
    """
    rows = TABLES[table]
    known = {row.key: row for row in (*rows, *(FURTHER if table == "table1" else ()))}
    for name in methods:
        if name not in known:
            raise ValueError(f"--methods {name}: {table} has {', '.join(known)}")
    return tuple(known[name] for name in methods) or rows


def cell_config(config: Config, row: Row, encoders: str = "") -> Config:
    """The recipe with a row's network; its runs lie beside those of the other rows.

    A recipe in stages is for memories: a network without DMNet's trains whole as long.
    Of one that begins with the single-frame network see `parts`.

    Args:
        config: the recipe.
        row: whose network.
        encoders: folder of torchvision's files, `vgg16.pth` or `vgg16-397923af.pth`.

    Raises:
        ValueError: the folder has not one file for the network.
    """
    train, model = config.train, dataclasses.replace(config.model, **row.model)
    if encoders and model.name in CLASSIFIERS:
        name = CLASSIFIERS[model.name]
        files = [*Path(encoders).glob(f"{name}.*"), *Path(encoders).glob(f"{name}-*")]
        if len(files) != 1:
            raise ValueError(
                f"--encoders {encoders}: {len(files)} files {name}.* or {name}-*, "
                f"want one, for {row.method}"
            )
        model = dataclasses.replace(model, pretrained=str(files[0]))
    remembers = model.name == "dmnet" and (model.local != "none" or model.global_memory)
    if not remembers:
        epochs = sum(stage.epochs for stage in config.resolved_stages)
        train = dataclasses.replace(train, stages=(), epochs=epochs)
    name = f"{config.name or 'unnamed'}_{row.key}"
    return dataclasses.replace(config, name=name, model=model, train=train)


def parts(run: Config, row: Row) -> tuple[Config, ...]:
    """What is trained for a run of a row, in order; the last is the run.

    Where the recipe begins with a stage of the single-frame network, that is the same
    for all rows with memories: it is a run of its own, which theirs start from.
    """
    stages = run.resolved_stages
    if len(stages) < 2 or stages[0].train != "single_frame" or run.train.start_from:
        return (run,)
    first = dataclasses.replace(
        run,
        name=run.name.removesuffix(row.key) + "single_frame",
        model=dataclasses.replace(run.model, local="none", global_memory=False),
        train=dataclasses.replace(run.train, stages=stages[:1]),
    )
    start = str(first.run_directory)
    train = dataclasses.replace(run.train, stages=stages[1:], start_from=start)
    return first, dataclasses.replace(run, train=train)

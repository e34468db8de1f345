"""The rows of the paper's tables: networks and published numbers."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dmnet_jax.config import Config

Name = Literal["table1", "table2a", "table2b"]


@dataclass(frozen=True)
class Row:
    """A table row. Numbers are the published ones; None if not published.

    Attributes:
        key: short name, used for its runs and in `--methods`.
        method: displayed name.
        model: fields to change in `config.model`.
        scores: (mDice, mIoU) in percent by dataset.
        parameters: number of parameters in millions.
        operations: the paper's "FLOPS", in 10^9.
        milliseconds: milliseconds per frame on one TITAN RTX.
        fps: frames per second.
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

# The torchvision network from which each network's encoder is initialized.
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

# Networks that are not in the paper, for `--methods`.
FURTHER = (
    Row("ternausnet11", "TernausNet-11", {"name": "ternausnet11"}),
    Row("linknet34", "LinkNet-34", {"name": "linknet34"}),
    Row("raunet", "RAUNet", {"name": "raunet"}),
    Row("td4_psp18", "TDNet (TD4-PSP18)", {"name": "td4_psp18"}),
)


def encoder_start(config: Config) -> str:
    """Returns how a cell's encoder is initialized: "ImageNet" or "random"."""
    pretrained = config.model.pretrained
    shipped = pretrained == "imagenet" and config.model.name not in CLASSIFIERS
    return "ImageNet" if shipped or pretrained not in ("imagenet", "none") else "random"


def chosen(table: Name, methods: tuple[str, ...]) -> tuple[Row, ...]:
    """Returns the rows of a table, all or those selected by name.

    Raises:
        ValueError: the table has no row of that name.
    """
    rows = TABLES[table]
    known = {row.key: row for row in (*rows, *(FURTHER if table == "table1" else ()))}
    for name in methods:
        if name not in known:
            raise ValueError(f"--methods {name}: {table} has {', '.join(known)}")
    return tuple(known[name] for name in methods) or rows


def cell_config(config: Config, row: Row, encoders: str = "") -> Config:
    """Returns the recipe with a row's network and a name for its runs.

    Stages are for networks with DMNet's memories. A network without them is trained as
    a whole for the same number of epochs. For recipes that start with the single-frame
    network, see `parts`.

    Args:
        config: the recipe.
        row: the row.
        encoders: folder with torchvision's files, such as `vgg16.pth` or
            `vgg16-397923af.pth`.

    Raises:
        ValueError: the folder does not have exactly one file for the network.
    """
    train, model = config.train, dataclasses.replace(config.model, **row.model)
    if encoders and model.name in CLASSIFIERS:
        name = CLASSIFIERS[model.name]
        files = [*Path(encoders).glob(f"{name}.*"), *Path(encoders).glob(f"{name}-*")]
        if len(files) != 1:
            raise ValueError(
                f"--encoders {encoders}: {len(files)} files {name}.* or {name}-*; "
                f"expected one, for {row.method}"
            )
        model = dataclasses.replace(model, pretrained=str(files[0]))
    remembers = model.name == "dmnet" and (model.local != "none" or model.global_memory)
    if not remembers:
        epochs = sum(stage.epochs for stage in config.resolved_stages)
        train = dataclasses.replace(train, stages=(), epochs=epochs)
    name = f"{config.name or 'unnamed'}_{row.key}"
    return dataclasses.replace(config, name=name, model=model, train=train)


def parts(run: Config, row: Row) -> tuple[Config, ...]:
    """Returns the runs to train for a run of a row, in order; the last is the run.

    If the recipe starts with a stage of the single-frame network, that stage is the
    same for all rows with memories. It becomes a separate run that the others start
    from.
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

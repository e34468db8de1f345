"""Descriptions of datasets are complete, and other code does not use their names."""

import ast
import dataclasses
from pathlib import Path

import pytest

from data_pipelines.sources import DATASETS, PREPARED, Dataset, Division, Request
from data_pipelines.sources.folder import open_folder
from dmnet_jax.config import DataConfig
from dmnet_jax.datasets import open_split
from dmnet_jax.metrics import PROTOCOLS
from tests.support.tiny_run import CLASSES, write_videos

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_a_description_is_complete(dataset, tmp_path):
    assert dataset.obtain and dataset.protocol in PROTOCOLS
    assert dataset.tasks or list(dataset.classes) == [""]
    for classes in dataset.classes.values():
        names = [info.name for info in classes]
        assert len(set(names)) == len(names) and (names or not dataset.published)
    divisions = dataset.divisions(())
    folds = [name for name in divisions if name.startswith("fold ")]
    assert folds == [f"fold {k}" for k in range(dataset.folds)]
    assert not (dataset.folds and len(divisions) > dataset.folds)
    if dataset.name in PREPARED:
        request = Request(dataset.name, task=next(iter(dataset.classes)))
        assert dataset.names(tmp_path, request) == []


def test_dataset_names_are_not_compared():
    """Code must use a dataset's description instead of comparing its name."""
    for folder in ("dmnet_jax", "data_pipelines"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Compare):
                    continue
                inner = list(ast.walk(node))
                compares = any(getattr(part, "attr", "") == "dataset" for part in inner)
                names = {p.value for p in inner if isinstance(p, ast.Constant)}
                assert not (compares and names & {*DATASETS}), f"{path}:{node.lineno}"


def test_a_description_is_sufficient_for_training(tmp_path, monkeypatch):
    root = write_videos(tmp_path, names=("one", "two"))
    toy = Dataset(
        name="toy",
        classes={"": DATASETS["endovis15"].classes[""]},
        protocol="global",
        obtain="Made here.",
        open=lambda root, request, selection: open_folder(
            root, videos=selection.videos
        ),
        names=lambda root, request: ["one", "two"],
        divisions=lambda videos: {"official": Division(("one",), ("two",))},
    )
    monkeypatch.setitem(DATASETS, "toy", toy)
    data = DataConfig(
        dataset="toy", root=str(root), size=(32, 64), num_classes=len(CLASSES)
    )
    train, val = open_split(data)
    assert [video.name for video in train.videos] == ["one"]
    assert [video.name for video in val.videos] == ["two"]
    with pytest.raises(ValueError, match="toy folder: --data.root DIR"):
        open_split(dataclasses.replace(data, root=""))

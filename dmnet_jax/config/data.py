"""The part of a run's configuration that says which data; see `schema`."""

from dataclasses import dataclass, field
from typing import Literal

from data_pipelines.corruption import TRAINED


@dataclass(frozen=True)
class SyntheticConfig:
    """Rendered video, for `data.dataset` "synthetic" or "rendered".

    Attributes:
        sequences: Numbers of the EndoVis17 sequences to imitate ("synthetic").
        frames: Frames of each video; of "rendered", of those that validate.
        size: Height and width in pixels ("synthetic").
        seed: Another seed, other videos.
        scenes: Videos that validate ("rendered").
        hold: Steps for which a row of the batch shows one scene ("rendered").
        epoch_steps: Steps that count as an epoch ("rendered").
    """

    sequences: tuple[int, ...] = (1, 2, 3, 4)
    frames: int = 60
    size: tuple[int, int] = (256, 320)
    seed: int = 0
    scenes: int = 8
    hold: int = 8
    epoch_steps: int = 100


@dataclass(frozen=True)
class DataConfig:
    """Video, labels and augmentation.

    Attributes:
        dataset: Its layout on disk; "folder" is your own, VIDEO/frames and VIDEO/masks;
            "rendered" is an endless stream of random rendered scenes, without a disk.
        root: Where it lies.
        test_root: Where the validation videos lie, if apart: a test archive of EndoVis.
        masks: Name of the mask folders ("folder" only).
        mask_values: What a mask's values mean ("folder" and "endovis15"): the class;
            or of a binary mask, 0 and 255, class 0 and 1; or colors of classes.json.
        absent_classes: Whether a class without a pixel in the training masks is
            refused or accepted ("folder" only; published classes are accepted).
        task: What is told apart (EndoVis).
        size: Height and width the network sees, multiples of 32.
        train: Names of the training videos; empty: the fold or split says.
        val: Names of the validation videos; empty: the fold or split says.
        fold: Which part of EndoVis17 validates, counted from 0.
        split: Published division of EndoVis18: the paper's, or the challenge's, which
            validates on its test archive, or ISINet's.
        num_classes: Background included.
        flip_horizontal: Mirror half of the training clips left to right.
        flip_vertical: Mirror half of them top to bottom.
        scale: Least and greatest random enlargement.
        photometric: Strength of random colour, 0 (the paper's none) to 1.
        corrupt: Share of training clips in which frames are corrupted as a camera's
            are for moments: blur, glare, an occluder, a black or frozen frame.
        corrupt_kinds: How (`data_pipelines.corruption.KINDS`). Smoke, blood and low
            light are left to tests of what carries over.
        frame_step: Every how many frames one is a training target.
        threads: Reading threads; rendering processes of "rendered".
        synthetic: What is rendered if the dataset is "synthetic".
    """

    dataset: Literal[
        "folder",
        "synthetic",
        "rendered",
        "endovis15",
        "endovis17",
        "endovis18",
        "camvid",
    ] = "endovis17"
    root: str = ""
    test_root: str = ""
    masks: str = "masks"
    mask_values: Literal["class", "binary", "colors"] = "class"
    absent_classes: Literal["refuse", "accept"] = "refuse"
    task: Literal["types", "parts", "binary", "all"] = "types"
    size: tuple[int, int] = (512, 640)
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    fold: int = 0
    split: Literal["paper", "challenge", "isinet"] = "paper"
    num_classes: int = 8
    flip_horizontal: bool = True
    flip_vertical: bool = True
    scale: tuple[float, float] = (0.9, 1.1)
    photometric: float = 0.0
    corrupt: float = 0.0
    corrupt_kinds: tuple[str, ...] = TRAINED
    frame_step: int = 1
    threads: int = 2
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)

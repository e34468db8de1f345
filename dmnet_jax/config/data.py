"""The data part of a run's configuration; see `schema`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from data_pipelines.corruption import TRAINED
from data_pipelines.sources import NAMES, SPLITS, TASKS
from data_pipelines.sources.dataset import MaskValues
from data_pipelines.synthetic.config import SyntheticConfig

if TYPE_CHECKING:
    DatasetName = TaskName = SplitName = str
else:
    # The registry defines these at run time; a type checker cannot evaluate them.
    DatasetName, TaskName, SplitName = Literal[NAMES], Literal[TASKS], Literal[SPLITS]


@dataclass(frozen=True)
class DataConfig:
    """Video, labels and augmentation.

    Attributes:
        dataset: Layout on disk. "folder" is your own: VIDEO/frames and VIDEO/masks.
            "rendered" is an endless stream of random rendered scenes, without files.
        root: Folder of the dataset.
        test_root: Folder of the validation videos, if separate: a test archive of
            EndoVis.
        masks: Name of the mask folders ("folder" only).
        mask_values: Meaning of mask values ("folder" and "endovis15"): the class;
            binary, 0 and 255 for classes 0 and 1; or colors of classes.json.
        absent_classes: Refuse or accept a class without a pixel in the training masks
            ("folder" only; for published datasets it is accepted).
        task: What the classes are (EndoVis).
        size: Height and width of the network's input, multiples of 32.
        train: Names of the training videos. Empty: given by the fold or split.
        val: Names of the validation videos. Empty: given by the fold or split.
        fold: Fold of EndoVis 2017 that validates, counted from 0.
        split: Published split of a dataset that has several. EndoVis 2018: the paper's,
            the challenge's, which validates on its test archive, or ISINet's.
        num_classes: Number of classes, background included.
        flip_horizontal: Flip half of the training clips left to right.
        flip_vertical: Flip half of the training clips top to bottom.
        scale: Smallest and largest factor of random scaling.
        photometric: Strength of random color changes, from 0 (none, as in the paper)
            to 1.
        corrupt: Fraction of training clips with corrupted frames, as in short camera
            disturbances: blur, glare, an occluder, a black or frozen frame.
        corrupt_kinds: Kinds of corruption (`data_pipelines.corruption.KINDS`). By
            default without smoke, blood and low light, which test generalization.
        cuts: Fraction of training sequences ("rollout") that cut to another video: half
            of them once or twice, the others up to once per frame. From these, a memory
            learns to handle cuts.
        frame_step: Distance between training targets, in frames.
        max_labels: Train with this many labels, spread evenly over the training videos;
            0: all.
        threads: Number of reading threads, or of rendering processes ("rendered").
        synthetic: What to render ("synthetic" and "rendered").
    """

    dataset: DatasetName = "endovis17"
    root: str = ""
    test_root: str = ""
    masks: str = "masks"
    mask_values: MaskValues = "class"
    absent_classes: Literal["refuse", "accept"] = "refuse"
    task: TaskName = "types"
    size: tuple[int, int] = (512, 640)
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    fold: int = 0
    split: SplitName = "paper"
    num_classes: int = 8
    flip_horizontal: bool = True
    flip_vertical: bool = True
    scale: tuple[float, float] = (0.9, 1.1)
    photometric: float = 0.0
    corrupt: float = 0.0
    corrupt_kinds: tuple[str, ...] = TRAINED
    cuts: float = 0.0
    frame_step: int = 1
    max_labels: int = 0
    threads: int = 2
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)

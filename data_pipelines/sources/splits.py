"""Published divisions of the datasets into training and validation videos."""

from collections.abc import Sequence
from dataclasses import dataclass

from data_pipelines.frames import DataError
from data_pipelines.sources import camvid, endovis17, endovis18


@dataclass(frozen=True)
class Division:
    """Names of the training and the validation videos.

    Attributes:
      train: of the dataset.
      val: of the dataset, or of its test archive.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]


def divisions(dataset: str, videos: Sequence[str] = ()) -> dict[str, Division]:
    """The published divisions of a dataset, by name; none for your own.

    Args:
      dataset: name as on the command line of `data_pipelines.prepare`.
      videos: names of the videos there are; CamVid's say which split they are of.
    """
    if dataset == "endovis17":
        return {
            f"fold {fold}": Division(*map(_endovis17, endovis17.fold_split(fold)))
            for fold in range(len(endovis17.FOLDS))
        }
    if dataset == "endovis18":
        return {
            name: Division(
                tuple(f"seq_{k}" for k in split.train),
                tuple(f"seq_{k}" for k in split.val)
                # The challenge validates on nothing but its test archive.
                or tuple(f"test_seq_{k}" for k in split.test),
            )
            for name, split in endovis18.SPLITS.items()
        }
    if dataset == "camvid":
        train, val = (
            tuple(name for name in videos if name.startswith(f"{split}_"))
            for split in camvid.SPLITS[:2]
        )
        return {"official": Division(train, val)}
    return {}


def require(
    division: Division, train: Sequence[str], val: Sequence[str], name: str
) -> None:
    """Holds videos that are there against those that a division needs.

    Args:
      division: what is needed.
      train: names of the videos that there are to train on.
      val: names of those that there are to validate on.
      name: of the division, for the error.

    Raises:
      DataError: names the videos that are missing, in one line.
    """
    missing = [video for video in division.train if video not in train]
    missing += [video for video in division.val if video not in val]
    if missing or not (division.train and division.val):
        there = ", ".join(dict.fromkeys([*train, *val]))
        what = f"lacks {', '.join(missing)}" if missing else "has an empty part"
        raise DataError(
            [
                f"{name} {what}; there are {there}; add the videos, or name those to "
                "use in data.train and data.val"
            ]
        )


def _endovis17(numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"instrument_dataset_{k}" for k in numbers)

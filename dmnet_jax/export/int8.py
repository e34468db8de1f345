"""int8 quantization of a step that was exported as OpenVINO IR.

The step is quantized on real inputs and scored against the float32 step on labeled
video. If it loses too much mIoU, the most sensitive layers are restored to float
precision, doubling their number on each attempt.
"""

import dataclasses
import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from data_pipelines.frames import FrameSource
from data_pipelines.sources import DATASETS
from dmnet_jax.checkpoint.runs import TrainedRun
from dmnet_jax.datasets import open_videos
from dmnet_jax.export import calibration, quantization
from dmnet_jax.export.int8_gate import Int8Gate, gate
from dmnet_jax.streaming import load_artifact
from dmnet_jax.streaming.artifact import write_artifact
from dmnet_jax.streaming.described import MAX_TEXT, read_description
from dmnet_jax.streaming.processor import INT8_IS_SLOW, computes_int8
from dmnet_jax.streaming.program import Interface

GIVEN_BACK = (0, 1, 2, 4, 8, 16)
"""Number of layers to restore to float precision, tried until the gate passes."""

MAX_DROP = 0.003


class Int8Error(ValueError):
    """Raised when the int8 step loses more mIoU than allowed."""


def check(calibrate: str, max_drop: float) -> None:
    """Checks the options and dependencies before minutes of work.

    Raises:
        ValueError: an option is invalid.
        ImportError: NNCF is not installed.
    """
    if not abs(max_drop) < float("inf"):
        raise ValueError(f"--max-drop {max_drop}: must be a number, such as {MAX_DROP}")
    if calibrate and not Path(calibrate).exists() and calibrate != "synthetic":
        raise ValueError(f"--calibrate {calibrate}: no such file or folder")
    quantization.import_nncf()


def find_sources(
    trained: TrainedRun,
    size: tuple[int, int],
    labeled: FrameSource | None,
    calibrate: str,
) -> tuple[calibration.Calibration, FrameSource]:
    """Returns the calibration data and the labeled videos to score on.

    Args:
        trained: the run. Its training and validation videos are the defaults.
        size: (H, W) of the step.
        labeled: labeled videos to score on. None: the run's validation videos.
        calibrate: path of calibration frames. Empty: the run's training videos.

    Raises:
        ValueError: videos are not where the config says, or have no frames.
    """
    config, about = trained.config, trained.about
    if labeled is None:
        data = calibration.with_size(config.data, size)
        try:
            labeled = open_videos(data, about.get("val_videos", []))
        except (ValueError, OSError) as error:
            raise ValueError(
                f"the run's validation videos cannot be opened ({error}); int8 is "
                "scored on labeled video: pass --labeled DIR"
            ) from error
    if calibrate:
        return calibration.of_folder(calibrate, size), labeled
    if DATASETS[config.data.dataset].endless:
        _tell(
            "note: int8 is calibrated on rendered scenes, on which this network was "
            "trained; pass --calibrate DIR and --labeled DIR to use other data"
        )
    names = about.get("train_videos", [])
    return calibration.of_training(config.data, names, size), labeled


def quantize(
    float32: Path,
    calibrated: calibration.Calibration,
    videos: FrameSource,
    max_drop: float,
) -> tuple[Path, dict[str, Any]]:
    """Writes the int8 step next to the float32 one.

    Args:
        float32: the `.xml` file of a float32 artifact.
        calibrated: calibration data.
        videos: labeled videos at the step's size.
        max_drop: maximum allowed loss of mIoU.

    Returns:
        The path of the int8 file, and a JSON report of the quantization and the gate.

    Raises:
        Int8Error: the int8 step loses more; the message gives both scores.
    """
    contents = {x: float32.with_suffix(x).read_bytes() for x in (".xml", ".bin")}
    body = float32.with_name(f"{float32.name}.json").read_bytes()[:MAX_TEXT]
    description = read_description(body, ".xml")
    reference = load_artifact(float32)
    inputs = calibration.Rolled(reference, description, calibrated)
    _tell(f"calibrating on {inputs.frames} frames of {calibrated.about}")
    if not computes_int8():
        _tell(f"note: {INT8_IS_SLOW}")
    ranked: list[str] = []
    for count in GIVEN_BACK:
        kept = ranked[:count]
        model, made = quantization.quantized(contents, inputs, kept)
        about = {
            "calibrated_on": calibrated.about,
            "inputs": inputs.frames,
            "max_drop": max_drop,
            "layers": len(quantization.layers(model)),
            "given_back": kept,
        }
        path = _written(float32, made, description.interface, about)
        with warnings.catch_warnings():  # the note about slow int8 was already printed
            warnings.simplefilter("ignore")
            program = load_artifact(path)
        found = gate(reference, program, videos)
        report = dataclasses.asdict(found)
        # The key as it is written in existing artifacts.
        report["labelled"] = report.pop("labeled")
        about |= {**report, "drop": found.drop}
        _tell(found.summary())
        if found.drop <= max_drop:
            return _written(float32, made, description.interface, about), about
        if count == GIVEN_BACK[-1]:
            break
        if not ranked:
            _tell("ranking layers by sensitivity")
            stride = max(1, inputs.frames // quantization.RANKED_ON)
            some = itertools.islice(inputs, 0, None, stride)
            ranked = quantization.ranked(contents, model, some)
        if count >= len(ranked):
            break
    raise Int8Error(_refusal(found, kept, max_drop))


def _refusal(found: Int8Gate, kept: list[str], max_drop: float) -> str:
    return (
        f"int8 loses {found.drop:.4f} mIoU, --max-drop is {max_drop}: float32 has "
        f"{found.miou_float32:.4f}, int8 {found.miou_int8:.4f} with {len(kept)} layers "
        "in float precision; nothing was written: calibrate on more frames like these "
        "(--calibrate DIR), allow more (--max-drop), or use --dtype bf16"
    )


def _written(
    float32: Path, contents: dict[str, bytes], interface: Interface, about: Any
) -> Path:
    """Writes the artifact with the description of the float32 one."""
    body = json.loads(float32.with_name(f"{float32.name}.json").read_text())
    notes = {k: v for k, v in body.items() if k not in Interface._fields}
    notes |= {"dtype": "int8", "quantization": about}
    return write_artifact(float32.parent, "model-int8", contents, interface, notes)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

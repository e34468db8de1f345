"""Exports a trained network for use in other programs.

    python -m dmnet_jax.export --checkpoint RUN --format jax
    python -m dmnet_jax.export --checkpoint RUN --format onnx
    python -m dmnet_jax.export --checkpoint RUN --format openvino --dtype bf16
    python -m dmnet_jax.export --checkpoint RUN --format openvino --dtype int8
    python -m dmnet_jax.export --checkpoint RUN --format safetensors --out DIR

jax, onnx and openvino: the streaming step (frame, memory -> labels, memory) as
StableHLO for CPU and CUDA in one file, as an ONNX graph, or as OpenVINO IR. It runs
with `dmnet_jax.streaming.Session.from_artifact`. It is first compared with the network
over 64 frames (parity.json) and not written if it differs. int8: quantized on the run's
training videos, scored on its validation videos against float32, and not written if it
loses more than --max-drop. safetensors: the variables, with the config in the header, a
file that every --checkpoint opens. Each file has a .sha256 file.

Before that, in this order, --average averages the weights with those of other runs,
--state adds a trained prediction state, and --adapt adapts the network to the look of
unlabeled video. For research use; not a medical device.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

from data_pipelines.io.environment import install_command
from data_pipelines.io.files import write_text
from dmnet_jax.cli.arguments import exit_with_error
from dmnet_jax.config import Config

if TYPE_CHECKING:
    from dmnet_jax.checkpoint.runs import TrainedRun


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to export.

    Attributes:
        checkpoint: Run directory, .safetensors file, or "rendered" or "rendered-fast"
            for the shipped networks.
        format: File format.
        out: Folder to write to. Empty: RUN/export.
        which: Checkpoint: newest (the finished network), or best on the validation
            videos.
        size: Height and width of the frames. Default: the training size.
        average: Runs or .safetensors files of the same architecture, trained from the
            same start, whose weights are averaged with those of --checkpoint.
        state: Run directory or .safetensors file of another network, or "rendered",
            whose trained prediction state is added to this one.
        adapt: Frames like those of the application, without labels (a folder of images,
            a video, or a folder of those), to whose look the network is adapted.
        dtype: Type in which OpenVINO computes, if the processor supports it.
        labeled: Folder of labeled videos (VIDEO/frames, VIDEO/masks, or prepared) on
            which exported step and network are scored; they may differ by 0.002 mIoU.
        calibrate: For int8: frames like those of the application (a folder of images, a
            video, or a folder of those). Empty: those of --adapt, if given, or the
            run's training videos.
        max_drop: For int8: maximum loss of mIoU on the labeled videos (those of
            --labeled, or the run's validation videos).
    """

    checkpoint: str
    format: Literal["jax", "onnx", "openvino", "safetensors"]
    out: str = ""
    which: Literal["newest", "best"] = "newest"
    size: tuple[int, int] | None = None
    average: tuple[str, ...] = ()
    state: str = ""
    adapt: str = ""
    dtype: Literal["fp32", "bf16", "int8"] = "fp32"
    labeled: str = ""
    calibrate: str = ""
    max_drop: float = 0.003


def main(argv: Sequence[str] | None = None) -> int:
    import tyro

    parser = Annotated[Flags, tyro.conf.OmitArgPrefixes]
    flags = tyro.cli(
        parser, prog="python -m dmnet_jax.export", description=__doc__, args=argv
    )
    try:
        write(flags)
    except (ValueError, OSError) as error:
        exit_with_error(error)
    return 0


def write(flags: Flags) -> None:
    """Exports a network and prints the path, size and digest of the file."""
    from dmnet_jax.checkpoint.runs import (
        add_state,
        average_weights,
        load_run,
        output_folder,
    )

    _check(flags)
    trained = load_run(flags.checkpoint, flags.which)
    about = {**trained.about, "config": _portable(trained.about["config"])}
    trained = trained._replace(about=about)
    if flags.average:
        others = {run: load_run(run, flags.which) for run in flags.average}
        try:
            trained = average_weights(trained, others)
        except ValueError as error:
            raise ValueError(f"--average: {error}") from error
    if flags.state:
        try:
            trained = add_state(trained, load_run(flags.state), flags.state)
        except ValueError as error:
            raise ValueError(f"--state: {error}") from error
    if flags.adapt:
        trained = _adapted(flags, trained)
        print(trained.about["adapted"])
    out = Path(flags.out or output_folder(flags.checkpoint) / "export")
    out.mkdir(parents=True, exist_ok=True)
    if flags.format == "safetensors":
        path = _write_safetensors(out, trained.variables, trained.about)
    else:
        path = _write_step(flags, out, trained)
    digest = path.with_name(f"{path.name}.sha256").read_text().split()[0]
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """Removes this machine's folders from a run's config."""
    return {
        **config,
        "data": {**config["data"], "root": "", "test_root": ""},
        "train": {**config["train"], "start_from": "", "teacher": ""},
        "workdir": Config().workdir,
    }


def _adapted(flags: Flags, trained: "TrainedRun") -> "TrainedRun":
    """Adapts the network to the frames of --adapt, and notes it in the metadata."""
    from dmnet_jax.export import calibration
    from dmnet_jax.models.adaptation import FRAMES, adapt

    size = flags.size or trained.config.data.size
    videos = calibration.of_folder(flags.adapt, size, flag="--adapt")
    frames = calibration.spread_frames(videos, FRAMES)
    try:
        variables = adapt(trained.model, trained.variables, frames)
    except ValueError as error:
        raise ValueError(f"--adapt: {error}") from error
    note = f"adapted to {FRAMES} frames of {videos.about}, without labels"
    about = {**trained.about, "adapted": note}
    return trained._replace(variables=variables, about=about)


def _write_safetensors(
    out: Path, variables: dict[str, Any], about: dict[str, Any]
) -> Path:
    import numpy as np

    from dmnet_jax.weights.files import read_weights
    from dmnet_jax.weights.layout import flatten
    from dmnet_jax.weights.network_file import write_network

    path = out / "model.safetensors"
    write_network(path, variables, about)
    for name, array in read_weights(path).items():
        if not np.array_equal(array, flatten(variables)[name]):
            raise ValueError(f"{path}: {name} was not written correctly; try again")
    return path


def _write_step(flags: Flags, out: Path, trained: "TrainedRun") -> Path:
    """Writes to a hidden folder, checks the result, and moves it to `out`."""
    from dmnet_jax.export.int8 import find_sources, quantize
    from dmnet_jax.export.parity import compare, score
    from dmnet_jax.streaming import load_artifact
    from dmnet_jax.streaming.artifact import files_of, write_artifact
    from dmnet_jax.streaming.program import Interface
    from dmnet_jax.weights.network_file import CHANGES

    model, variables, config, about = trained
    size = flags.size or config.data.size
    videos = _labeled(flags.labeled, config, size, about) if flags.labeled else None
    sources = None
    if flags.dtype == "int8":
        seen = flags.calibrate or flags.adapt
        sources = find_sources(trained, size, videos, seen)
    interface = Interface(size, 1, model.num_classes, size)
    contents, notes = _contents(flags.format, model, variables, interface)
    dtype = "fp32" if flags.dtype == "int8" else flags.dtype
    notes |= {
        "dtype": dtype,
        "config": about["config"],
        "classes": about.get("classes", []),
    }
    notes |= {n: about[n] for n in CHANGES if n in about}
    name = "model" if dtype == "fp32" else f"model-{dtype}"
    with TemporaryDirectory(prefix=".", dir=out) as hidden:
        written = write_artifact(Path(hidden), name, contents, interface, notes)
        program = load_artifact(written)
        names = [leaf["name"] for leaf in notes["memory"]]
        parity = compare(model, variables, program, names)
        if videos is not None:
            scores = score(model, variables, program, videos)
            parity.miou_network, parity.miou_exported = scores
        passed = parity.passed(dtype)
        report = {
            **dataclasses.asdict(parity),
            "passed": passed,
            "computed_in": _computed_in(dtype),
            "versions": about.get("versions", {}),
        }
        _record(out / "parity.json", written.name, report)
        if not passed:
            raise ValueError(
                f"{out / 'parity.json'}: the exported step differs from the network "
                f"({parity}); nothing was written"
            )
        if sources is not None:
            written, report = quantize(written, *sources, flags.max_drop)
            _record(out / "parity.json", written.name, report)
        for file in files_of(written):
            os.replace(file, out / file.name)
    return out / written.name


def _check(flags: Flags) -> None:
    """Rejects invalid combinations of flags, and int8 without its dependencies."""
    from dmnet_jax.export import int8

    if len({flags.checkpoint, *flags.average}) <= len(flags.average):
        raise ValueError("--average: a run is named twice")
    if flags.dtype != "fp32" and flags.format != "openvino":
        raise ValueError(f"--dtype {flags.dtype} needs --format openvino")
    if flags.dtype == "int8":
        try:
            int8.check(flags.calibrate, flags.max_drop)
        except ImportError as error:
            raise ValueError(
                f"--dtype int8: {error.name} is not installed; "
                f"{install_command('openvino')}"
            ) from error
    elif flags.calibrate:
        raise ValueError("--calibrate needs --dtype int8")


def _contents(
    format: str, model: Any, variables: Any, interface: Any
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Returns the contents of the files by suffix, and their description."""
    if format == "jax":
        from dmnet_jax.export import stablehlo

        content, notes = stablehlo.export_step(model, variables, interface)
        return {".jax": content}, notes
    try:
        from dmnet_jax.export import onnx_graph

        content, notes = onnx_graph.export_step(model, variables, interface)
        if format == "onnx":
            return {".onnx": content}, notes
        from dmnet_jax.export import openvino_ir

        xml, weights = openvino_ir.convert(content)
        return {".xml": xml, ".bin": weights}, notes
    except ImportError as error:
        raise ValueError(
            f"--format {format}: {error.name} is not installed; "
            f"{install_command(format)}"
        ) from error


def _labeled(root: str, config: Config, size: tuple[int, int], about: Any) -> Any:
    """Opens the validation videos of a prepared dataset, or all videos of a folder."""
    from data_pipelines.prepared import MANIFEST
    from dmnet_jax.datasets import open_validation, open_videos

    prepared = (Path(root) / MANIFEST).is_file()
    data = dataclasses.replace(
        config.data,
        dataset=config.data.dataset if prepared else "folder",
        root=root,
        test_root="",
        size=size,
    )
    known = [video.name for video in open_validation(data).videos]
    held_back = [name for name in about.get("val_videos", []) if name in known]
    return open_videos(data, held_back or known)


def _computed_in(dtype: str) -> str:
    """Returns the type in which this machine compared the step; notes a fallback."""
    from dmnet_jax.streaming.runtimes import has_bf16

    if dtype == "bf16" and not has_bf16():
        print(
            "note: this processor has no bfloat16; the step was compared in float32. "
            "Export it again on the target machine.",
            file=sys.stderr,
        )
        return "fp32"
    return dtype


def _record(path: Path, name: str, report: dict[str, Any]) -> None:
    """Adds the report of one file to a JSON file of reports."""
    reports = {}
    if path.is_file():
        try:
            reports = dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError, RecursionError):
            print(f"note: {path} was damaged; it is replaced", file=sys.stderr)
    write_text(path, json.dumps({**reports, name: report}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

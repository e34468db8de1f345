"""Writes a trained network as files for other programs.

    python -m dmnet_jax.export --checkpoint RUN --format jax
    python -m dmnet_jax.export --checkpoint RUN --format safetensors --out DIR

jax: the streaming step (frame, memory -> labels, memory) as StableHLO for CPU and CUDA
in one file, model.jax; run it with `dmnet_jax.streaming.Session.from_artefact`. It is
compared with the network over 64 frames first (parity.json) and not written if it
differs. safetensors: the variables, with the config in the header; the form to archive.
Each file has its sha256 beside it. For research use; not a medical device.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from dmnet_jax.command_line import exit_with_error
from dmnet_jax.config import from_json


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to export.

    Attributes:
        checkpoint: Run directory.
        format: Kind of file.
        out: Where it goes; empty: RUN/export.
        which: Best on the validation videos, or newest.
        size: Height and width of the frames (jax); the training size if left out.
    """

    checkpoint: str
    format: Literal["jax", "safetensors"]
    out: str = ""
    which: Literal["best", "newest"] = "best"
    size: tuple[int, int] | None = None


def main(argv: Sequence[str] | None = None) -> int:
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
    """Loads, checks, writes, and prints what was written."""
    from dmnet_jax.checkpoint import load_variables

    variables, about = load_variables(flags.checkpoint, flags.which)
    out = Path(flags.out or Path(flags.checkpoint) / "export")
    out.mkdir(parents=True, exist_ok=True)
    if flags.format == "safetensors":
        path, digest = _write_safetensors(out, variables, about)
    else:
        path, digest = _write_jax(out, variables, about, flags.size)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


def _write_safetensors(
    out: Path, variables: dict[str, Any], about: dict[str, Any]
) -> tuple[Path, str]:
    import numpy as np

    from dmnet_jax.weights.files import read_weights, write_safetensors
    from dmnet_jax.weights.layout import flatten

    path = out / "model.safetensors"
    notes = {
        name: about[name] if isinstance(about[name], str) else json.dumps(about[name])
        for name in ("config", "classes", "train_videos", "val_videos", "versions")
        if name in about
    }
    digest = write_safetensors(path, variables, notes)
    for name, array in read_weights(path).items():
        if not np.array_equal(array, flatten(variables)[name]):
            raise ValueError(f"{path}: {name} was not written as it is; try again")
    return path, digest


def _write_jax(
    out: Path,
    variables: dict[str, Any],
    about: dict[str, Any],
    size: tuple[int, int] | None,
) -> tuple[Path, str]:
    from jax import export

    from dmnet_jax import models
    from dmnet_jax.export.parity import compare
    from dmnet_jax.export.stablehlo import describe, export_step
    from dmnet_jax.streaming.artefact import from_exported, write_artefact
    from dmnet_jax.streaming.program import Interface

    config = from_json(json.dumps(about["config"]))
    model = models.build_dmnet(config)
    size = size or config.data.size
    interface = Interface(size, 1, model.num_classes, size)
    exported, names = export_step(model, variables, interface)
    content = bytes(exported.serialize())
    # What is compared is what a reader will get.
    read_back = export.deserialize(bytearray(content))
    parity = compare(
        model, variables, from_exported(read_back, interface, names), names
    )
    report = {
        **dataclasses.asdict(parity),
        "passed": parity.passed,
        "versions": about.get("versions", {}),
    }
    (out / "parity.json").write_text(json.dumps(report, indent=1) + "\n")
    if not parity.passed:
        raise ValueError(
            f"{out / 'parity.json'}: the exported step differs from the network "
            f"({parity}); nothing was written"
        )
    path = out / "model.jax"
    notes = {
        **describe(exported, names),
        "config": about["config"],
        "classes": about.get("classes", []),
    }
    return path, write_artefact(path, content, interface, notes)


if __name__ == "__main__":
    sys.exit(main())

"""Checks this installation and prints commands that fix problems.

    python -m dmnet_jax.doctor
    python -m dmnet_jax.doctor --json

The exit status is 0 if networks can be run and trained, otherwise 1. Missing optional
parts only give a warning. For research use; not a medical device.
"""

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from data_pipelines.io.environment import install_command
from dmnet_jax.cli.arguments import parse_flags, program_name

MIN_FREE_SPACE = 5e9
"""Free disk space in bytes below which to warn, since a run has several checkpoints."""

_STEPS, _SIZE = 10, (256, 320)


@dataclasses.dataclass(frozen=True)
class Flags:
    """Output options.

    Attributes:
        json: Print JSON.
    """

    json: bool = False


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: name of the check.
        status: "ok", "failed", or "warning" for optional parts and possible problems.
        detail: the result as text.
        fix: a command that fixes the problem; empty if there is none.
    """

    name: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    fix: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog=program_name("python -m dmnet_jax.doctor"),
        description=__doc__ or "",
    )
    checks = []
    for name, run in CHECKS.items():
        check = _run_check(name, run)
        checks.append(check)
        if not flags.json:
            print(_format(check), flush=True)
    works = all(check.status != "failed" for check in checks)
    if flags.json:
        report = [dataclasses.asdict(check) for check in checks]
        print(json.dumps({"works": works, "checks": report}, indent=1))
    return 0 if works else 1


def _run_check(name: str, run: Callable[[str], Check]) -> Check:
    try:
        return run(name)
    except Exception as error:  # any error is a result of the check
        text = " ".join(f"{type(error).__name__}: {error}".split())
        fix = "pip install --force-reinstall -c constraints.txt -e ."
        return Check(name, "failed", text[:300], fix)


def _format(check: Check) -> str:
    mark = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}[check.status]
    fix = f"\n{'':9}→ {check.fix}" if check.fix else ""
    return f"{mark}  {check.name}: {check.detail}{fix}"


def _versions(name: str) -> Check:
    from dmnet_jax.checkpoint.provenance import versions

    text = ", ".join(f"{package} {number}" for package, number in versions().items())
    return Check(name, "ok", f"{text}; {platform.platform()}")


def _devices(name: str) -> Check:
    import jax

    from dmnet_jax.process import cores

    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    text = f"{len(devices)} of {', '.join(kinds)} ({jax.default_backend()})"
    text += f"; {cores()} CPU cores"
    driver = Path("/proc/driver/nvidia/version").exists()
    if driver and jax.default_backend() == "cpu":
        fix = f"{install_command('cuda13')}  # driver >= 580; else [cuda12]"
        return Check(name, "warning", f"{text}; the NVIDIA GPU is not used", fix)
    return Check(name, "ok", text)


def _weights(name: str) -> Check:
    from dmnet_jax.weights.files import read_weights
    from dmnet_jax.weights.imagenet import SHIPPED

    count = sum(array.size for array in read_weights(SHIPPED).values())
    return Check(
        name, "ok", f"the shipped encoder is intact, {count / 1e6:.1f} M parameters"
    )


def _step(name: str) -> Check:
    import jax
    import numpy as np

    from dmnet_jax import models
    from dmnet_jax.config import Config
    from dmnet_jax.streaming import Session, compile
    from dmnet_jax.training.initial import initial_variables

    config = Config()  # the paper's network
    model = models.build_dmnet(config)
    variables = initial_variables(model, config)
    start = time.perf_counter()
    session = Session(compile(model, variables, size=_SIZE))
    compile_time = time.perf_counter() - start
    rng = np.random.default_rng(0)
    for _ in range(_STEPS):
        result = session.step(rng.integers(0, 256, (*_SIZE, 3), np.uint8))
        if result.status != "ok":
            raise ValueError(f"a frame was {result.status}: {result.reason}")
    p50 = session.stats()["latency"]["p50_ms"]
    height, width = _SIZE
    return Check(
        name,
        "ok",
        f"{p50:.1f} ms per frame of {height}x{width} (median of {_STEPS}), compiled in "
        f"{compile_time:.1f} s on {jax.devices()[0]}",
    )


def _disk(name: str) -> Check:
    usage = shutil.disk_usage(".")
    text = f"{usage.free / 1e9:.1f} GB free in {Path.cwd()}"
    if not os.access(".", os.W_OK):
        fix = "--workdir DIR, a folder that you may write to"
        return Check(name, "warning", f"{Path.cwd()} is not writable", fix)
    if usage.free < MIN_FREE_SPACE:
        return Check(name, "warning", text, "--workdir DIR, on a disk with more space")
    return Check(name, "ok", text)


def _video(name: str) -> Check:
    import tempfile

    import numpy as np

    from dmnet_jax.video.pyav import VideoFile, VideoWriter, pyav
    from dmnet_jax.video.sources import SourceError

    try:
        av = pyav()
    except SourceError:
        text = "PyAV is not installed: folders of images work, videos do not"
        return Check(name, "warning", text, install_command("video"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        with VideoWriter(path, 25) as writer:
            for index in range(5):
                writer.add(np.full((64, 64, 3), 40 * index, np.uint8), index / 25)
        frames = len(list(VideoFile(path)))
    if frames != 5:
        raise ValueError(f"5 frames were written, {frames} read")
    codec = "H.264" if "libx264" in av.codecs_available else "MPEG-4"
    return Check(name, "ok", f"PyAV {av.__version__}, writes {codec}")


def _tensorboard(name: str) -> Check:
    if importlib.util.find_spec("tensorboardX") is None:
        text = "not installed: --train.tensorboard does not work"
        return Check(name, "warning", text, install_command("tb"))
    return Check(
        name, "ok", f"tensorboardX {importlib.metadata.version('tensorboardX')}"
    )


CHECKS: dict[str, Callable[[str], Check]] = {
    "versions": _versions,
    "devices": _devices,
    "weights": _weights,
    "step": _step,
    "disk": _disk,
    "video": _video,
    "tensorboard": _tensorboard,
}


if __name__ == "__main__":
    sys.exit(main())

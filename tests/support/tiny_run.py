"""A small DMNet and training runs of a few seconds, shared by tests.

The command `tiny_run.py SCRIPT SIGNAL STEP ARGUMENTS...` runs a script with the shallow
network, or with a toy network if TOY is in the environment, and sends itself a signal
when the log reaches a step (0: never).
"""

import functools
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from data_pipelines.frames import ClassInfo, Video

ROOT = Path(__file__).parents[2]
CLASSES = ("background", "shaft", "tip")
TRAIN_STEPS = 8

RECIPE = """
from dmnet_jax.config import *

def get_config():
    return Config(
        name="tiny",
        data=DataConfig(
            dataset="folder", size=(64, 64), train=("one",), val=("two",),
            num_classes=3,
        ),
        model=ModelConfig(
            pretrained="none", local_size=1, num_reads=2, global_size=8
        ),
        optim=OptimConfig(lr=1e-3, cross_entropy_weight=0.5),
        train=TrainConfig(
            batch_size=4, log_every=1, checkpoint_every_steps=1,
            stages=(
                StageConfig("first", 1, train="single_frame"),
                StageConfig("second", 1, train="memory"),
                StageConfig("third", 2, train="all"),
            ),
        ),
    )
"""


@contextmanager
def shallow() -> Iterator[None]:
    """Makes configs build a tiny DMNet in the block.

    Most compiler optimizations are off, because tests mainly spend time compiling.
    """
    import jax

    from dmnet_jax import models
    from dmnet_jax.models.dmnet import TINY

    build = models.build_dmnet

    def tiny(config: Any, **options: Any) -> Any:
        return build(config, **options).clone(**TINY)

    with mock.patch.object(models, "build_dmnet", tiny):
        before = jax.config.read("jax_disable_most_optimizations")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", before)


def picture(index: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> Any:
    """Returns (image uint8 [H, W, 3], label uint8 [H, W]): moving squares and noise."""
    rng = np.random.default_rng((seed, index))
    label = np.zeros(size, np.uint8)
    label[10:34, 4 + 3 * index :][:, :20] = 1
    label[14:30, 24 + 3 * index :][:, :14] = 2
    colors = np.array([[150, 60, 50], [90, 90, 100], [220, 220, 230]])
    image = colors[label] + rng.integers(-20, 20, (*size, 3))
    return image.astype(np.uint8), label


@dataclass(frozen=True)
class Videos:
    """A frame source of generated pictures.

    Attributes:
        lengths: number of frames of each video.
        unlabeled: indices of frames without a label.
    """

    lengths: tuple[int, ...]
    unlabeled: frozenset[int] = frozenset()
    classes = tuple(ClassInfo(name, (60 * i, 9, 9)) for i, name in enumerate(CLASSES))

    @property
    def videos(self) -> tuple[Video, ...]:
        return tuple(
            Video(f"video{v}", tuple(f"f{i}" for i in range(n)), self.unlabeled)
            for v, n in enumerate(self.lengths)
        )

    def image(self, video: int, frame: int) -> np.ndarray:
        return picture(frame, seed=video)[0]

    def label(self, video: int, frame: int) -> np.ndarray | None:
        return None if frame in self.unlabeled else picture(frame, seed=video)[1]


def write_videos(root: Path, *, frames: int = 6, names: Any = ("one", "two")) -> Path:
    """Writes videos in the folder layout, with three named classes."""
    for seed, name in enumerate(names):
        for kind in ("frames", "masks"):
            (root / name / kind).mkdir(parents=True)
        for i in range(frames):
            image, label = picture(i, seed=seed)
            Image.fromarray(image).save(root / name / "frames" / f"{i}.png")
            Image.fromarray(label).save(root / name / "masks" / f"{i}.png")
    write_classes(root, CLASSES)
    return root


def write_classes(root: Path, names: Any) -> None:
    entries = [{"name": name, "color": [9, 9, i]} for i, name in enumerate(names)]
    (root / "classes.json").write_text(json.dumps(entries))


def tiny_config() -> Any:
    """Returns the config of `RECIPE`, without a file."""
    space: dict[str, Any] = {}
    exec(RECIPE, space)
    return space["get_config"]()


@functools.cache
def network() -> tuple[Any, Any]:
    """Returns a tiny network without dropout and its initial variables."""
    import jax
    import jax.numpy as jnp

    from dmnet_jax import models
    from dmnet_jax.models.dmnet import TINY
    from dmnet_jax.training.initial import RUNS_ONCE

    config = tiny_config()
    model = models.build(config).clone(attention_dropout=0.0, **TINY)
    memory = model.init_memory(1, (64, 64), jax.random.key(0))
    init = jax.jit(model.init, compiler_options=RUNS_ONCE)
    frames = jnp.zeros((1, 1, 64, 64, 3), jnp.uint8)
    return model, jax.device_get(init(jax.random.key(1), memory, frames))


@functools.cache
def program(label_size: tuple[int, int]) -> Any:
    """Returns the compiled program of the network for 64x64 frames."""
    from dmnet_jax import streaming

    return streaming.compile(*network(), size=(64, 64), label_size=label_size)


def clips(rows: int = 4, *, window: int = 2, past: int = 2) -> dict[str, np.ndarray]:
    """Returns a batch of different clips without masked frames."""
    pictures = [
        [picture(i + r, seed=r) for i in range(window + past)] for r in range(rows)
    ]
    images = np.array([[image for image, _ in row] for row in pictures])
    return {
        "frames": images[:, past:],
        "frames_mask": np.ones((rows, window), bool),
        "past": images[:, :past],
        "past_mask": np.ones((rows, past), bool),
        "label": np.array([row[-1][1] for row in pictures]),
    }


@functools.cache
def linear() -> Any:
    """Returns an optimizer with state and decay that does not amplify rounding errors.

    Adam would turn the sign of a gradient of 1e-9 into a full step.
    """
    import optax

    return optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.01, momentum=0.9))


def stage(steps_per_epoch: int = 5, lr_scale: float = 1.0) -> Any:
    """Returns a stage with only the attributes that the optimizer uses."""
    loader = SimpleNamespace(steps_per_epoch=steps_per_epoch)
    return SimpleNamespace(loader=loader, lr_scale=lr_scale)


@functools.cache
def plain_step(part: str) -> Callable[..., Any]:
    """Returns `train_step` for one device."""
    import jax

    return jax.jit(step_of(part))


def step_of(
    part: str, axis_name: str | None = None, **options: Any
) -> Callable[..., Any]:
    """Returns `train_step` of a stage that trains `part` with `linear()`."""
    from dmnet_jax import training

    model = network()[0].clone(axis_name=axis_name)
    return functools.partial(
        training.train_step,
        model=model.single_frame() if part == "single_frame" else model,
        tx=linear(),
        optim=tiny_config().optim,
        part=part,
        axis_name=axis_name,
        **options,
    )


def start_script(
    cache: Path,
    script: str,
    *arguments: object,
    signal: int = 0,
    step: int = 0,
    toy: bool = False,
    **environment: str,
) -> subprocess.Popen[str]:
    """Starts a script with the shallow network on one device.

    Args:
        cache: folder of the compilation cache.
        script: the script.
        arguments: its arguments.
        signal: signal that the script sends itself; see the module's docstring.
        step: step at which the signal is sent; 0: never.
        toy: whether to use the even smaller network of tests/support/toy.py.
        environment: additional environment variables.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    if toy:
        environment["TOY"] = "1"
    command = [sys.executable, __file__, script, signal, step, *arguments]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_script(
    cache: Path, script: str, *arguments: object, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a script to its end; see `start_script` for arguments."""
    process = start_script(cache, script, *arguments, **options)
    out, err = process.communicate(timeout=400)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def train_arguments(folder: Path, workdir: str) -> list[str]:
    """Returns arguments of train.py for the videos and the recipe in `folder`."""
    return [
        *("--config", str(folder / "tiny.py")),
        *("--data.root", str(folder / "videos")),
        *("--workdir", str(folder / workdir)),
    ]


@functools.cache
def trained(session: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Returns the folder and the process of a complete, uninterrupted run of a toy.

    The folder contains tiny.py, videos and whole/tiny/fold0-seed0. The run is made once
    per session.
    """
    folder = session / "toy_run"
    write_videos(folder / "videos")
    (folder / "tiny.py").write_text(RECIPE)
    arguments = train_arguments(folder, "whole")
    return folder, run_script(session / "compiled", "train.py", *arguments, toy=True)


RUN = "tiny/fold0-seed0"


def main() -> None:
    script, number, at_step, *arguments = sys.argv[1:]
    from dmnet_jax.training.run_log import RunLog

    record = RunLog.record

    def record_and_signal(self: RunLog, step: int, **values: Any) -> None:
        record(self, step, **values)
        if step == int(at_step):
            os.kill(os.getpid(), int(number))

    sys.argv = [script, *arguments]
    small_network = shallow
    if "TOY" in os.environ:
        from tests.support import toy

        small_network = toy.use_toy_networks
    with small_network(), mock.patch.object(RunLog, "record", record_and_signal):
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()

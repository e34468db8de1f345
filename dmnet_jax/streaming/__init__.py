"""Live video: a compiled inference step and a session around it.

`compile` builds a program from a trained network. `Session` runs a compiled or exported
program on one camera and handles bad, late and repeated frames. Frames may have any
size. `dmnet_jax.video` reads video files and cameras.
For several cameras, compile with `streams=B` and call `Program.step` with masks.
"""

from dmnet_jax.checkpoint.runs import PRETRAINED, PRETRAINED_FAST, TrainedRun, load_run
from dmnet_jax.memory import KEEP, RESET_ALL, RESET_LOCAL
from dmnet_jax.streaming.artifact import ArtifactError, load_artifact
from dmnet_jax.streaming.frames import Policy
from dmnet_jax.streaming.program import NO_LABEL, Labeled, Program, compile
from dmnet_jax.streaming.session import Result, Session

__all__ = [
    "ArtifactError",
    "KEEP",
    "Labeled",
    "NO_LABEL",
    "PRETRAINED",
    "PRETRAINED_FAST",
    "Policy",
    "Program",
    "RESET_ALL",
    "RESET_LOCAL",
    "Result",
    "Session",
    "TrainedRun",
    "compile",
    "load_artifact",
    "load_run",
]

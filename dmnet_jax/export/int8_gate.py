"""Quality gate of an int8 step: compares it with float32 on labeled video."""

import dataclasses

import jax
import numpy as np

from data_pipelines.frames import FrameSource, resize_label
from dmnet_jax.metrics import frame_counts, summarize
from dmnet_jax.streaming.program import Program


@dataclasses.dataclass(frozen=True)
class Int8Gate:
    """Differences between an int8 step and the float32 one on the same videos.

    Attributes:
        videos: names of the videos, each run from an empty memory.
        frames: number of frames.
        labeled: number of frames that were scored.
        miou_float32: pooled IoU over foreground classes of the float32 step.
        miou_int8: pooled IoU over foreground classes of the int8 step.
        label_mismatch: share of pixels whose labels differ.
        confidence_error: maximum difference of r.
        admitted: number of frames that entered the float32 step's global memory.
        decisions_differ: number of frames that only one of the two admitted.
    """

    videos: tuple[str, ...]
    frames: int
    labeled: int
    miou_float32: float
    miou_int8: float
    label_mismatch: float
    confidence_error: float
    admitted: int
    decisions_differ: int

    @property
    def drop(self) -> float:
        """mIoU lost by int8; negative if it gains."""
        return self.miou_float32 - self.miou_int8

    def summary(self) -> str:
        """Returns a one-line summary."""
        line = (
            f"int8 {self.miou_int8:.4f} mIoU, float32 {self.miou_float32:.4f}, on "
            f"{self.labeled} labeled frames; of all labels "
            f"{100 * self.label_mismatch:.2f} % differ, confidence by up to "
            f"{self.confidence_error:.1e}"
        )
        if not self.admitted:
            return line
        differ = f"{self.decisions_differ} of {self.frames} decisions to admit differ"
        return f"{line}; {differ}"


def gate(float32: Program, int8: Program, videos: FrameSource) -> Int8Gate:
    """Runs both steps over the videos and compares them.

    Args:
        float32: the float32 step, for one stream, with labels at the frames' size.
        int8: the same step, quantized.
        videos: videos at the programs' size.

    Raises:
        ValueError: no frame has a label.
    """
    both, classes = (float32, int8), float32.interface.num_classes
    remembers = float32.memories.global_
    rows, mismatch, apart = [], [], [0.0]
    admitted, differ = 0, 0
    for number, video in enumerate(videos.videos):
        key = jax.random.fold_in(jax.random.key(0), number)
        memories = [program.init_memory(key) for program in both]
        for index in range(len(video.frames)):
            image, truth = videos.image(number, index), videos.label(number, index)
            found = []
            for side, program in enumerate(both):
                memories[side], out = program.step(memories[side], image[None])
                found.append(out)
            labels = [np.asarray(out.labels[0]) for out in found]
            mismatch.append(float((labels[0] != labels[1]).mean()))
            r = [float(out.confidence[0]) for out in found]
            apart.append(abs(r[0] - r[1]) if np.isfinite(r).all() else float("inf"))
            decisions = [bool(out.admitted[0]) and remembers for out in found]
            admitted += decisions[0]
            differ += decisions[0] != decisions[1]
            if truth is not None:
                truth = resize_label(truth, image.shape[:2])
                rows.append([frame_counts(x, truth, classes) for x in labels])
    if not rows:
        raise ValueError("no frame of the labeled videos has a label")
    scores = [
        float(summarize(counts, protocol="global")["iou"])
        for counts in np.array(rows).swapaxes(0, 1)
    ]
    return Int8Gate(
        videos=tuple(video.name for video in videos.videos),
        frames=len(mismatch),
        labeled=len(rows),
        miou_float32=scores[0],
        miou_int8=scores[1],
        label_mismatch=float(np.mean(mismatch)),
        confidence_error=max(apart),
        admitted=admitted,
        decisions_differ=differ,
    )

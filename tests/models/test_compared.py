"""The compared networks behind the one face: stream, scan and clip agree."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax.models.linknet import LinkNet
from dmnet_jax.models.lwanet import LWANet
from dmnet_jax.models.paanet import PAANetStyle
from dmnet_jax.models.tapnet import TAPNet
from dmnet_jax.models.tdnet import TDNet
from dmnet_jax.models.ternausnet import TernausNet
from dmnet_jax.nn import mobilenet
from tests.tiny_run import picture

KEY = jax.random.key(0)
SHALLOW = (1, 1, 1, 1)

# As small as they get.
SMALL = {
    "TernausNet": partial(TernausNet, layers=11, width=8),
    "LinkNet": partial(LinkNet, blocks=SHALLOW, width=8),
    "RAUNet": partial(LinkNet, blocks=SHALLOW, width=8, attention=True),
    "PAANet-style": partial(PAANetStyle, blocks=SHALLOW, width=8),
    "LWANet": LWANet,
    "TD2": partial(TDNet, paths=2, blocks=SHALLOW, width=8, norm_size=(8, 8)),
    "TD4": partial(TDNet, paths=4, blocks=SHALLOW, width=8, norm_size=(8, 8)),
    "TAPNet": partial(TAPNet, width=8),
}
WINDOW = {"TD2": 2, "TD4": 4, "TAPNet": 2}

quick_jit = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


@pytest.fixture(scope="module", autouse=True)
def shallow_encoder():
    with pytest.MonkeyPatch.context() as patch:
        stages = tuple((e, c, 1, stride) for e, c, _, stride in mobilenet.STAGES)
        patch.setattr(mobilenet, "STAGES", stages)
        yield


class Small:
    """A small network with variables, and its programs."""

    def __init__(self, name):
        self.model = SMALL[name](3)
        self.window = WINDOW.get(name, 1)
        self.traces = 0
        memory = self.model.init_memory(1, (64, 64), KEY)
        frames = jnp.zeros((1, 1, 64, 64, 3), jnp.uint8)
        self.variables = quick_jit(self.model.init)(KEY, memory, frames)
        self.roll = quick_jit(self.model.apply)
        self.step = quick_jit(self._step)
        self.clip = quick_jit(partial(self.model.apply, method="clip"))

    def _step(self, variables, memory, frame):
        self.traces += 1
        return self.model.apply(variables, memory, frame, method="step")

    def stream(self, frames):
        memory, outputs = (
            self.model.init_memory(len(frames), frames.shape[2:4], KEY),
            [],
        )
        for t in range(frames.shape[1]):
            memory, output = self.step(self.variables, memory, frames[:, t])
            outputs.append(output)
        return jax.tree.map(lambda *x: np.stack(x, 1), *outputs)


@pytest.fixture(scope="module")
def small():
    made = {}
    return lambda name: made.setdefault(name, Small(name))


def video(length, size=(64, 64)):
    """uint8 [2, T, H, W, 3] and labels of the last frames, [2, H, W]."""
    rows = [[picture(i, size, seed) for i in range(length)] for seed in (0, 7)]
    images = np.array([[image for image, _ in row] for row in rows])
    return images, np.array([row[-1][1] for row in rows])


@pytest.mark.parametrize("name", SMALL)
def test_stream_equals_scan_and_compiles_once(small, name):
    network, (frames, _) = small(name), video(6)
    streamed = network.stream(frames)
    assert network.traces == 1
    memory = network.model.init_memory(2, (64, 64), KEY)
    _, rolled = network.roll(network.variables, memory, frames)
    assert rolled.logits.shape[:2] == (2, 6) and np.isfinite(rolled.logits).all()
    scale = np.abs(rolled.logits).max()
    assert scale > 0
    np.testing.assert_allclose(streamed.logits, rolled.logits, atol=1e-4 * scale)
    assert (rolled.confidence <= 0).all() and not rolled.admitted.any()

"""The control that degrades the input, and the trust map; no network is needed."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines.corruption import KINDS, corrupt
from dmnet_jax.live.degrade import OFF, Choice, Degrade
from dmnet_jax.live.engine import Engine
from dmnet_jax.models.protocol import Memories
from dmnet_jax.predict.network import Network
from dmnet_jax.streaming.program import Interface, Labeled, Program
from dmnet_jax.video.sources import Captured
from tests.support.live import until
from tests.support.tiny_run import CLASSES, picture

SIZE = (64, 64)
FRAMES = [picture(i, SIZE)[0] for i in range(4)]
TRUST = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)


def test_frames_are_unchanged_by_default():
    assert Degrade()(FRAMES[0]) is FRAMES[0]
    assert Degrade().choice.description == ""


def test_consecutive_frames_share_a_burst_and_later_bursts_differ():
    degrade = Degrade()
    degrade(FRAMES[0])
    degrade.choose(Choice("smoke", 3))
    first = [degrade(frame) for frame in FRAMES]
    for step, (frame, actual) in enumerate(zip(FRAMES, first, strict=True)):
        expected = corrupt(frame, "smoke", 3, seed=1, step=step)
        np.testing.assert_array_equal(actual, expected)
    degrade.choose(Choice("smoke", 5))  # thicker, but the same smoke
    expected = corrupt(FRAMES[0], "smoke", 5, seed=1, step=4)
    np.testing.assert_array_equal(degrade(FRAMES[0]), expected)
    degrade.choose(Choice(OFF))
    assert degrade(FRAMES[1]) is FRAMES[1]
    degrade.choose(Choice("smoke", 3))
    assert (degrade(FRAMES[0]) != first[0]).any()


def test_frozen_repeats_the_last_frame_before():
    degrade = Degrade()
    degrade.choose(Choice("frozen"))
    assert all(degrade(frame) is FRAMES[0] for frame in FRAMES)
    degrade.choose(Choice("black"))
    assert not degrade(FRAMES[2]).any()
    degrade.choose(Choice("frozen"))
    assert degrade(FRAMES[3]) is FRAMES[2] and degrade(FRAMES[0]) is FRAMES[2]


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"black", "frozen"}))
def test_a_disturbance_does_not_drift_away(kind):
    degrade = Degrade()
    degrade.choose(Choice(kind, 3))

    def change(step):
        degrade._step = step
        return np.abs(degrade(FRAMES[0]).astype(float) - FRAMES[0]).mean()

    least = min(change(step) for step in range(0, 1000, 50))
    assert least > 0.2 * change(0) > 1
    # The disturbance oscillates without a jump.
    np.testing.assert_array_equal(change(199), change(1))


class Still:
    """Repeats a few frames; the program records its inputs."""

    rate, live = 200.0, False

    def __init__(self):
        self.given = []

        def call(memory, frames, active, reset):
            self.given.append(np.array(frames[0]))
            labels = np.ones((1, *SIZE), np.uint8)
            score = np.array([-0.1], np.float32)
            step: Any = labels, None, score, score, np.zeros(1, bool), TRUST[None]
            return memory, Labeled(*step)

        interface = Interface(SIZE, 1, len(CLASSES), SIZE)
        memories = Memories(local=False, global_=False)
        program = Program(interface, lambda key: {}, call, memories=memories)
        classes = [{"name": n, "color": [9, 9, 9]} for n in CLASSES]
        self.network = Network(classes, SIZE, "", lambda *_: program, compiled=True)

    def __iter__(self):
        for index in range(100_000):
            yield Captured(FRAMES[index % 4], index / 200, f"{index}")

    def engine(self):
        return Engine(self.network, self, {"source": "still"})


@pytest.fixture
def still():
    return Still()


def pixels(address):
    content = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)))


def test_the_session_gets_and_the_page_shows_what_is_degraded(still):
    with still.engine() as engine:
        plain = until(engine, lambda event: event["status"] == "ok")
        assert plain["degraded"] == "" and plain["point"][5] is False
        assert plain["degrade"] == {"kind": "none", "severity": 3}
        engine.order({"degrade": "low_light", "severity": 5})
        dark = until(engine, lambda event: event["degraded"])
        assert dark["degraded"] == "low light, severity 5" and dark["status"] == "ok"
        assert dark["degrade"] == {"kind": "low_light", "severity": 5}
        assert dark["point"][5] is True
        assert pixels(dark["image"]).mean() < 0.5 * pixels(plain["image"]).mean()
        assert still.given[-1].mean() < 0.5 * FRAMES[0].mean()
        engine.order({"degrade": "none", "severity": 5})
        until(engine, lambda event: not event["degraded"])
    assert any((still.given[-1] == frame).all() for frame in FRAMES)


def test_trust_is_shown_where_there_is_a_result(still):
    with still.engine() as engine:
        trust = until(engine, lambda event: event["status"] == "ok")["trust"]
        np.testing.assert_allclose(pixels(trust["image"]) / 255, TRUST, atol=0.01)
        assert trust["mean"] == 0.5
        # As from a camera, a black frame is withheld.
        engine.order({"degrade": "black", "severity": 1})
        black = until(engine, lambda event: event["degraded"] == "black")
        assert black["status"] == "blank"
        assert black["trust"] is None and black["mask"] is None


def test_setting_changed_while_paused_is_shown_and_applies_to_the_next_frame(still):
    with still.engine() as engine:
        until(engine, lambda event: event["index"] >= 1)
        engine.order({"paused": True})
        until(engine, lambda event: event["paused"])
        engine.order({"degrade": "blood", "severity": 2})
        paused_event = until(engine, lambda event: event["degrade"]["kind"] == "blood")
        assert paused_event["paused"] and paused_event["degraded"] == ""
        engine.order({"paused": False})
        until(engine, lambda event: event["degraded"] == "blood, severity 2")


@pytest.mark.parametrize(
    "command",
    [
        {"degrade": "smoke"},
        {"degrade": "fog", "severity": 3},
        {"degrade": ["smoke"], "severity": 3},
        {"degrade": "smoke", "severity": 0},
        {"degrade": "smoke", "severity": 6},
        {"degrade": "smoke", "severity": 3.0},
        {"degrade": "smoke", "severity": True},
        {"degrade": "smoke", "severity": [3]},
        {"degrade": "none", "severity": None},
        {"degrade": "smoke", "severity": 3, "paused": True},
    ],
)
def test_invalid_settings(command):
    assert Choice.of(command) is None

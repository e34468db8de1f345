"""Networks without a specialized stream program are streamed by their `step`."""

import jax
import numpy as np
import pytest

from dmnet_jax.export.parity import compare
from dmnet_jax.export.stablehlo import export_step, leaf_names
from dmnet_jax.memory import KEEP, RESET_ALL, RESET_LOCAL
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.nn.resizing import resized_argmax
from dmnet_jax.streaming import NO_LABEL, Session, compile
from dmnet_jax.streaming.artifact import load_artifact, write_artifact
from dmnet_jax.streaming.program import Interface
from tests.models.test_compared import SIZE, Small
from tests.support import tiny_run
from tests.support.random_variables import random_variables

KEY = jax.random.key(0)
NAMES = ("LWANet", "TD2", "TAPNet")


@pytest.fixture(scope="module", autouse=True)
def shallow():
    with tiny_run.shallow():
        yield


@pytest.fixture(scope="module")
def small():
    return {name: Small(name) for name in NAMES}


def frame(index, seed=0):
    return tiny_run.picture(index % 8, SIZE, seed)[0][None]


def labels_of(network, frames):
    """The labels of `step` over the frames, starting from an empty memory."""
    memory, result = network.model.init_memory(1, SIZE, KEY), []
    for image in frames:
        memory, output = network.step(network.variables, memory, image)
        logits = jax.image.resize(
            output.logits, (1, *SIZE, output.logits.shape[-1]), "linear"
        )
        result.append(np.argmax(logits, -1).astype(np.uint8))
    return result


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_equals_the_step_of_the_network(small, name):
    network = small[name]
    program = compile(network.model, network.variables, size=SIZE)
    memory, frames = program.init_memory(KEY), [frame(i) for i in range(4)]
    labels = labels_of(network, frames)
    for image, expected in zip(frames, labels, strict=True):
        memory, out = program.step(memory, image)
        assert (np.asarray(out.labels) == expected).mean() > 0.99
    # Either reset restarts the stream; a stream without a frame does not change.
    for what in (RESET_LOCAL, RESET_ALL):
        memory, out = program.step(memory, frames[0], reset=np.array([what], np.uint8))
        assert (np.asarray(out.labels) == labels[0]).mean() > 0.99
    before = [np.array(x) for x in jax.tree.leaves(memory)]
    memory, out = program.step(memory, frames[1], active=np.array([False]))
    assert (np.asarray(out.labels) == NO_LABEL).all()
    for old, new in zip(before, jax.tree.leaves(memory), strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))


def test_streams_at_different_positions_are_independent(small):
    """TDNet alternates paths from frame to frame, separately for each stream."""
    network = small["TD2"]
    program = compile(network.model, network.variables, size=SIZE, streams=2)
    memory = program.init_memory(KEY)
    alone = [labels_of(network, [frame(i, s) for i in range(3)]) for s in range(2)]
    # The second stream begins one frame later.
    for index in range(4):
        frames = np.concatenate([frame(index % 3), frame(max(index - 1, 0), 1)])
        active = np.array([index < 3, index > 0])
        memory, out = program.step(memory, frames, active=active)
        for stream, position in ((0, index), (1, index - 1)):
            if active[stream]:
                expected = alone[stream][position][0]
                assert (np.asarray(out.labels)[stream] == expected).mean() > 0.99


@pytest.mark.parametrize("name", ["LWANet", "TD2"])
def test_the_step_is_exported_and_passes_the_gate(small, name, tmp_path):
    network, interface = small[name], Interface(SIZE, 1, 3, SIZE)
    content, notes = export_step(network.model, network.variables, interface)
    path = write_artifact(tmp_path, "model", {".jax": content}, interface, notes)
    program = load_artifact(path)
    names = leaf_names(network.model.init_memory(1, SIZE, KEY))
    result = compare(network.model, network.variables, program, names)
    assert result.passed() and not result.remembers and result.resets == 1


def test_networks_that_call_the_host_are_not_exported(small):
    network = small["TAPNet"]
    with pytest.raises(ValueError, match="TAPNet computes a part of its step on the"):
        export_step(network.model, network.variables, Interface(SIZE, 1, 3, SIZE))


def test_session_of_a_network_without_a_stream_program(small):
    network = small["TD2"]
    program = compile(network.model, network.variables, size=SIZE)
    with Session(program) as session:
        results = [session.step(frame(i)[0]) for i in range(3)]
        assert [result.status for result in results] == ["ok"] * 3
        assert not any(result.admitted for result in results)
        assert session.thresholds is None
        assert session.remembered() == ((), ())
        session.reset()
        again = session.step(frame(0)[0])
    assert results[0].labels is not None and again.labels is not None
    assert (again.labels == results[0].labels).mean() > 0.99
    assert KEEP == 0


def test_session_reports_the_trust_of_each_part_of_a_frame():
    model = DMNet.tiny(3, local="none", global_memory=False, state=True)
    size, memory = (32, 64), model.init_memory(1, (32, 64), KEY)
    frames = np.random.default_rng(0).integers(0, 256, (1, 3, *size, 3), np.uint8)
    variables = random_variables(jax.eval_shape(model.init, KEY, memory, frames))
    session = Session(compile(model, variables, size=size))

    def trust_of(frame):
        trust = session.step(frame).trust
        assert trust is not None
        return trust

    first, second, third = map(trust_of, frames[0])
    assert first.shape == (8, 16) and first.dtype == np.float32
    assert (first == 1).all(), "the first frame must be trusted fully"
    for trust in (second, third):
        assert ((trust > 0) & (trust < 1)).all() and len(np.unique(trust)) > 100
    assert (second != third).all()
    # The trust of a letterboxed frame covers only the frame, without the padding.
    assert trust_of(frames[0, 0, :, :40]).shape == (8, 10)
    assert session.step(np.zeros_like(frames[0, 0])).trust is None


def test_session_with_a_memory_of_masks_equals_a_scan():
    model = DMNet.tiny(
        3, local="none", global_values="masks", global_size=2, num_reads=2, state=True
    )
    size, memory = (32, 64), model.init_memory(1, (32, 64), KEY)
    frames = np.random.default_rng(0).integers(0, 256, (1, 4, *size, 3), np.uint8)
    variables = random_variables(jax.eval_shape(model.init, KEY, memory, frames))
    variables["thresholds"] = {
        "min_confidence": np.float32(-np.inf),
        "max_similarity": np.float32(np.inf),
    }
    _, scanned = jax.jit(model.apply)(variables, memory, frames)
    expected = resized_argmax(scanned.logits[0], size)
    with Session(compile(model, variables, size=size)) as session:
        for index, frame_ in enumerate(frames[0]):
            result = session.step(frame_)
            assert result.labels is not None and result.admitted
            assert (result.labels == np.asarray(expected[index])).mean() > 0.99
        assert session.remembered() == ((), (2, 3))
        first = session.step(frames[0, 0]).labels
        session.reset()
        again = session.step(frames[0, 0])
        assert session.remembered() == ((), (0,))
    assert first is not None and again.labels is not None
    assert (first != again.labels).any(), "the memory has no effect"
    assert (again.labels == np.asarray(expected[0])).mean() > 0.99

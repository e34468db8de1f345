"""The compiled step with many streams, isolated sessions, and as an artifact."""

import dataclasses
import gc
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from dmnet_jax.export import parity
from dmnet_jax.export.parity import compare
from dmnet_jax.export.stablehlo import export_step, leaf_names
from dmnet_jax.streaming import (
    NO_LABEL,
    ArtifactError,
    Policy,
    Session,
    compile,
    load_artifact,
)
from dmnet_jax.streaming.artifact import write_artifact
from dmnet_jax.streaming.program import Interface, Memories, Program
from tests.support import tiny_run

SIZE = (32, 64)
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module", autouse=True)
def shallow():
    with tiny_run.shallow():
        yield


@pytest.fixture(scope="module")
def network():
    model, variables = tiny_run.network()
    everything = {"min_confidence": -np.inf, "max_similarity": np.inf}
    thresholds = jax.tree.map(np.float32, everything)
    return model, {**variables, "thresholds": thresholds}


@pytest.fixture(scope="module")
def three(network):
    return compile(*network, size=SIZE, streams=3, probabilities=True)


@pytest.fixture(scope="module")
def single(network):
    return compile(*network, size=SIZE)


def frames_at(index, streams=3):
    pictures = [tiny_run.picture((index + 3 * s) % 8, SIZE, s) for s in range(streams)]
    return np.stack([image for image, _ in pictures])


def on_host(tree):
    return jax.tree.map(np.array, tree)


def row(tree, stream):
    return jax.tree.map(lambda x: x[stream], tree)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_streams_start_stop_and_reset_independently(three):
    """Stream 1 gives the same bits alone and beside other streams that change."""
    rng = np.random.default_rng(0)
    crowd = three.init_memory(jax.random.key(1))
    alone = three.init_memory(jax.random.key(1))
    for index in range(12):
        active = np.array([rng.random() < 0.6, index not in (3, 4), index >= 5])
        reset = np.array([rng.integers(0, 3), 2 * (index == 7), 0], np.uint8)
        before = on_host(crowd)
        frames = frames_at(index)
        crowd, together = three.step(crowd, frames, active=active, reset=reset)
        only = np.array([False, active[1], False])
        alone, single = three.step(
            alone, frames * only[:, None, None, None], active=only, reset=reset
        )
        for stream in np.flatnonzero(~active & (reset == 0)):
            assert_equal(row(before, stream), row(on_host(crowd), stream))
            assert (np.asarray(together.labels[stream]) == NO_LABEL).all()
        if active[1]:
            assert_equal(row(together, 1), row(single, 1))
    assert_equal(row(on_host(crowd), 1), row(on_host(alone), 1))


def test_probabilities_and_labels_agree(three):
    memory = three.init_memory(jax.random.key(1))
    _, out = three.step(memory, frames_at(0))
    np.testing.assert_allclose(out.probabilities.sum(-1), 1, atol=1e-5)
    assert out.labels.shape == (3, *SIZE) and out.labels.dtype == np.uint8
    of_label = np.take_along_axis(
        np.asarray(out.probabilities), np.asarray(out.labels)[..., None], -1
    )
    np.testing.assert_allclose(of_label[..., 0], out.probabilities.max(-1), atol=1e-6)


def test_batch_of_one_agrees_with_a_larger_one(three, single):
    many, one = three.init_memory(jax.random.key(1)), single.init_memory(KEY0)
    # Each stream draws its reads from its own key.
    one = dataclasses.replace(one, key=on_host(many.key)[:1])
    for index in range(5):
        many, expected = three.step(many, frames_at(index))
        one, actual = single.step(one, frames_at(index)[:1])
        np.testing.assert_allclose(
            actual.confidence, expected.confidence[:1], rtol=1e-4
        )
        assert (actual.labels[0] != expected.labels[0]).mean() < 1e-2


def test_memory_is_donated_and_other_shapes_are_refused(single):
    memory = single.init_memory(KEY0)
    buffer = memory.global_.slots.value
    memory, _ = single.step(memory, frames_at(0, 1))
    assert buffer.is_deleted()
    with pytest.raises(TypeError):
        single.step(memory, np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.parametrize("wrong", [{"size": (60, 64)}, {"streams": 0}])
def test_impossible_shapes(network, wrong):
    with pytest.raises(ValueError, match="must be"):
        compile(*network, **{"size": SIZE, **wrong})


def played(session, indices, seed=0):
    results = [session.step(tiny_run.picture(i % 8, SIZE, seed)[0]) for i in indices]
    return [(r.labels, r.confidence, r.similarity, r.admitted) for r in results]


def test_sessions_are_isolated_and_reset_is_fresh(single):
    alone = [played(Session(single), range(8), seed) for seed in (0, 1)]
    with Session(single) as one, Session(single) as two:
        mixed = [(played(one, [i])[0], played(two, [i], seed=1)[0]) for i in range(8)]
        assert_equal([pair[0] for pair in mixed], alone[0])
        assert_equal([pair[1] for pair in mixed], alone[1])
        one.reset()
        assert_equal(played(one, range(8)), alone[0])
    with pytest.raises(ValueError, match="closed"):
        one.step(tiny_run.picture(0, SIZE)[0])


@pytest.mark.parametrize("position", [0, 1, 5])
def test_unusable_frames_do_not_change_the_results_of_others(single, position):
    """With a black, a damaged, a repeated and a wrong frame among them, the others
    come to the same bits."""
    expected = played(Session(single), range(7))
    with Session(single, policy=Policy(other_sizes="refuse")) as session:
        actual = []
        for index in range(7):
            frame = tiny_run.picture(index, SIZE)[0]
            if index == position:
                assert session.step(np.zeros_like(frame)).status == "blank"
                assert session.step(frame, damage="bad block").status == "suspect"
                assert session.step(frame[:16]).status == "refused"
            actual += played(session, [index])
            if index == position:
                assert session.step(frame).status == "frozen"
        assert_equal(actual, expected)


def test_non_finite_local_memory_recovers_after_its_length(single, network):
    """A non-finite local memory is flagged, and is no longer read after its length."""
    with Session(single) as session:
        played(session, range(3))
        local = session._memory.local
        poisoned = jax.tree.map(lambda x: x * np.nan, local.slots)
        local = dataclasses.replace(local, slots=poisoned)
        session._memory = dataclasses.replace(session._memory, local=local)
        frames = [tiny_run.picture(i, SIZE)[0] for i in range(3, 8)]
        results = [session.step(frame) for frame in frames]
        assert results[0].status == "suspect" and results[0].labels is None
        assert not results[0].admitted
        last = network[0].local_size + 1
        assert {result.status for result in results[last:]} == {"ok"}


def test_video_of_one_frame(single):
    with Session(single) as session:
        result = session.step(tiny_run.picture(0, SIZE)[0])
        assert result.status == "ok" and result.admitted
        assert np.isfinite(result.confidence) and result.similarity == -np.inf
        assert session.remembered() == ((0,), (0,))


def test_thresholds_change_without_recompilation(single):
    with Session(single) as session, Session(single) as other:
        played(session, range(2))
        before = session.program
        session.set_thresholds(min_confidence=0.0, max_similarity=0.0)
        assert not played(session, [2])[0][3] and session.remembered().global_ == (0, 1)
        assert session.thresholds == {"min_confidence": 0.0, "max_similarity": 0.0}
        assert session.program is not before and other.program is before
        assert played(other, [0])[0][3], (
            "the thresholds of other sessions must not change"
        )
        with pytest.raises(ValueError, match="finite"):
            session.set_thresholds(min_confidence=np.nan, max_similarity=0.0)


def test_threads_step_and_query_one_session(single):
    """No thread sees the memory deleted while a step has it donated."""
    with Session(single) as session, ThreadPoolExecutor(3) as pool:
        session.step(tiny_run.picture(0, SIZE)[0])
        queries = [pool.submit(session.remembered) for _ in range(40)]
        played = [
            pool.submit(session.step, tiny_run.picture(i % 8, SIZE, i)[0])
            for i in range(1, 40)
        ]
        assert {job.result().status for job in played} == {"ok"}
        assert all(job.result().global_ for job in queries)
        assert session.stats()["frames"] == 40


def test_a_network_without_memory_stores_nothing(single):
    """Its program still has both memories, and reports what would be admitted."""
    parts = single.interface, single.init_memory, single._call
    program = Program(*parts, memories=Memories(False, False))
    assert single.memories == (True, True)
    with Session(program) as session:
        results = [session.step(tiny_run.picture(i, SIZE)[0]) for i in range(3)]
        assert {result.status for result in results} == {"ok"}
        assert not any(result.admitted for result in results)
        assert {result.similarity for result in results} == {-np.inf}
        assert session.remembered() == ((), ())


def watch(single, frames):
    """A session over many frames: compilations, growth of live arrays and of RSS."""
    events = []

    def on_event(name, seconds, **_):
        if name == COMPILED:
            events.append(seconds)

    with Session(single) as session:
        played(session, range(20))
        jax.monitoring.register_event_duration_secs_listener(on_event)
        try:
            gc.collect()
            arrays, resident = len(jax.live_arrays()), resident_bytes()
            for index in range(frames):
                if index % 97 == 0:
                    session.reset("reset-local")
                session.step(tiny_run.picture(index % 8, SIZE)[0])
            gc.collect()
            grown = len(jax.live_arrays()) - arrays, resident_bytes() - resident
        finally:
            jax.monitoring.unregister_event_duration_listener(on_event)
        return session.stats(), events, *grown


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_three_hundred_frames_do_not_recompile_or_leak(single):
    stats, compiled, arrays, _ = watch(single, 300)
    assert compiled == [] and arrays == 0
    assert stats["frames"] == stats["latency"]["steps"] == 320
    assert 0 < stats["latency"]["p50_ms"] <= stats["latency"]["max_ms"]
    json.dumps(stats)


@pytest.mark.soak
def test_ten_thousand_frames(single):
    stats, compiled, arrays, resident = watch(single, 10_000)
    print(stats, f"grown by {resident / 1e6:.1f} MB")
    assert compiled == [] and arrays == 0
    assert resident < 16e6


@pytest.fixture(scope="module")
def artifact(network, tmp_path_factory):
    interface = Interface(SIZE, 1, 3, SIZE)
    content, notes = export_step(*network, interface)
    folder = tmp_path_factory.mktemp("export")
    return write_artifact(folder, "model", {".jax": content}, interface, notes)


def body_of(artifact):
    return json.loads(artifact.with_name("model.jax.json").read_text())


def test_exported_step_passes_the_gate(network, artifact):
    program = load_artifact(artifact)
    names = [leaf["name"] for leaf in body_of(artifact)["memory"]]
    result = compare(*network, program, names)
    assert result.passed(), result
    assert result.frames == 64 and result.resets == 1 and result.wraps > 8
    assert result.admitted == 64


def test_gate_refuses_another_network(network, single, monkeypatch):
    monkeypatch.setattr(parity, "FRAMES", 8)
    model, variables = network
    other = jax.tree.map(lambda x: x * 1.01, variables)
    memory = jax.eval_shape(single.init_memory, KEY0)
    result = compare(model, other, single, leaf_names(memory))
    assert result.frames == 8 and result.resets == 1 and result.wraps > 0
    assert result.state_error > parity.RELATIVE and not result.passed()


def test_session_of_an_artifact_is_the_same(single, artifact):
    with Session.from_artifact(artifact) as exported, Session(single) as compiled:
        for actual, expected in zip(
            played(exported, range(10)), played(compiled, range(10)), strict=True
        ):
            assert (actual[0] != expected[0]).mean() < 1e-2
            np.testing.assert_allclose(actual[1:3], expected[1:3], rtol=1e-3)
            assert actual[3] == expected[3]


def test_thresholds_of_an_artifact_are_fixed(artifact):
    with Session.from_artifact(artifact) as session:
        assert session.thresholds is None
        with pytest.raises(ValueError, match="exported"):
            session.set_thresholds(min_confidence=-1.0, max_similarity=0.0)
        with pytest.raises(ValueError, match="compiled program"):
            session.remembered()


def test_artifact_is_for_cpu_and_cuda_and_does_not_describe_this_machine(artifact):
    body = body_of(artifact)
    assert body["platforms"] == ["cpu", "cuda"]
    assert body["kept"] == list(range(len(body["inputs"])))
    for file in artifact.parent.iterdir():
        content = file.read_bytes()
        assert b".py" not in content and str(tiny_run.ROOT).encode() not in content


@pytest.mark.parametrize("where", ["content", "checksum", "interface"])
def test_damaged_artifact_is_refused(artifact, tmp_path, where):
    for file in artifact.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / artifact.name
    if where == "content":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif where == "checksum":
        (tmp_path / "model.jax.sha256").unlink()
    else:
        (tmp_path / "model.jax.json").write_text("{}")
    with pytest.raises(ArtifactError, match="model.jax"):
        load_artifact(path)


def resealed(artifact, folder, change):
    """A copy with a changed description and a valid checksum."""
    content = artifact.read_bytes()
    body = body_of(artifact)
    content = change(bytearray(content), body) or content
    path = folder / artifact.name
    path.write_bytes(content)
    described = json.dumps(body).encode()
    path.with_name("model.jax.json").write_bytes(described)
    sums = [hashlib.sha256(x).hexdigest() for x in (content, described)]
    path.with_name("model.jax.sha256").write_text("\n".join(sums))
    return path


def wider(content, body):
    """A description with more slots than the program has."""
    for part in ("memory", "inputs", "outputs"):
        for tensor in body[part]:
            if tensor["name"].startswith(".global_") and len(tensor["shape"]) > 1:
                tensor["shape"][1] += 1


def cut(content, body):
    return bytes(content[: len(content) * 2 // 3])


def scrambled(content, body):
    place = content.index(b"ML\xefR")
    content[place + 23 : place + 40] = bytes(range(100, 117))
    return bytes(content)


@pytest.mark.parametrize("change", [wider, cut, scrambled])
def test_damage_with_a_valid_checksum_is_one_error_line(artifact, tmp_path, change):
    path = resealed(artifact, tmp_path, change)
    with pytest.raises(ArtifactError, match="model.jax: cannot be opened") as caught:
        load_artifact(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


KEY0 = jax.random.key(0)

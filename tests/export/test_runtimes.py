"""Every kind of network passes the gate in ONNX Runtime and OpenVINO."""

import hashlib
import importlib.util
import json
import sys
from typing import Any

import jax
import numpy as np
import pytest

from dmnet_jax import memory as mem
from dmnet_jax.export import parity
from dmnet_jax.memory import KEEP, RESET_ALL, RESET_LOCAL
from dmnet_jax.models.dmnet import TINY, DMNet
from dmnet_jax.models.lwanet import LWANet
from dmnet_jax.streaming import ArtifactError, Session, load_artifact
from dmnet_jax.streaming.artifact import files_of, write_artifact
from dmnet_jax.streaming.program import NO_LABEL, Interface
from dmnet_jax.streaming.runtimes import openvino_core
from tests.support import tiny_run

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from dmnet_jax.export import onnx_graph  # noqa: E402
from dmnet_jax.export.onnx_convert import convert  # noqa: E402

SIZE = (32, 64)
HAS_OPENVINO = importlib.util.find_spec("openvino") is not None
FORMATS = [
    "onnx",
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(not HAS_OPENVINO, reason="needs the extra openvino"),
    ),
]


@pytest.fixture(scope="module", autouse=True)
def shallow():
    with tiny_run.shallow():
        yield


NARROW = {"width": 64, "value_channels": 32}


def network(**settings):
    """A network with random weights and features of unit scale."""
    small = {"num_classes": 3, "local_size": 2, "num_reads": 2, "global_size": 5}
    model = DMNet.tiny(**(small | settings))
    return model, variables_of(model)


def variables_of(model):
    """Random variables for features of unit scale; every frame is admitted."""
    memory = model.init_memory(1, SIZE, jax.random.key(0))
    frames = np.zeros((1, 1, *SIZE, 3), np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(1), memory, frames)
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name = path[-1].key
        if name == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            # The state multiplies these by 150 and 50: at unit scale, it would amplify
            # rounding as no trained network does.
            scaled = path[-2].key in ("appearance_weight", "areas_weight")
            size = fan_in**-0.5 * (0.01 if scaled else 1)
            return rng.normal(0, size, leaf.shape).astype(np.float32)
        if name in ("scale", "var"):
            return rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32)
        return rng.normal(0, 0.1, leaf.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(fill, shapes)
    everything = {"min_confidence": -np.inf, "max_similarity": np.inf}
    if "thresholds" in variables:
        variables = {**variables, "thresholds": jax.tree.map(np.float32, everything)}
    return variables


def written(folder, kind, model, variables, label_size=SIZE, **notes):
    interface = Interface(SIZE, 1, 3, label_size)
    content, about = onnx_graph.export_step(model, variables, interface)
    contents: Any = {".onnx": content}
    if kind == "openvino":
        from dmnet_jax.export import openvino_ir

        contents = dict(
            zip((".xml", ".bin"), openvino_ir.convert(content), strict=True)
        )
    about = {"dtype": "fp32", **about, **notes}
    return write_artifact(folder, "model", contents, interface, about)


def compared(path, model, variables):
    body = json.loads(path.with_name(f"{path.name}.json").read_text())
    names = [leaf["name"] for leaf in body["memory"]]
    return parity.compare(model, variables, load_artifact(path), names)


@pytest.fixture(scope="module")
def paper():
    return network()


@pytest.fixture(scope="module", params=FORMATS)
def artifact(request, paper, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return written(folder, request.param, *paper)


def test_the_papers_network_passes_the_gate(artifact, paper):
    result = compared(artifact, *paper)
    assert result.passed(), result
    assert result.frames == 64 and result.resets == 1 and result.wraps > 8


@pytest.mark.parametrize(
    "settings",
    [
        {"local": "nl", "share_key_value": True, "num_reads": 7, "encoder": "torch"}
        | NARROW,
        {"local": "none", "global_memory": False, "state": True},
        {"local": "none", "global_values": "masks", "num_reads": 7, "global_size": 8},
        pytest.param({"local": "none"}, marks=pytest.mark.soak),
        pytest.param({"local": "clstm"} | NARROW, marks=pytest.mark.soak),
        pytest.param(
            {"local": "blstm", "global_memory": False} | NARROW, marks=pytest.mark.soak
        ),
    ],
    ids=lambda settings: settings["local"] + " state" * ("state" in settings),
)
def test_every_kind_of_network_is_exported_exactly(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "FRAMES", 12)
    model, variables = network(**settings)
    for kind in ["onnx", "openvino"] if HAS_OPENVINO else ["onnx"]:
        path = written(tmp_path, kind, model, variables)
        result = compared(path, model, variables)
        assert result.passed(), (kind, result)


def test_another_network_is_exported_too(tmp_path, monkeypatch):
    """It has no memory, so some inputs of the graph are unused."""
    monkeypatch.setattr(parity, "FRAMES", 4)
    model = LWANet(3, stages=TINY["stages"])
    variables = variables_of(model)
    for kind in ["onnx", "openvino"] if HAS_OPENVINO else ["onnx"]:
        path = written(tmp_path, kind, model, variables)
        result = compared(path, model, variables)
        assert result.passed(), (kind, result)


def test_unsupported_networks_are_refused():
    model = DMNet.tiny(num_classes=3, dtype=jax.numpy.bfloat16)
    with pytest.raises(ValueError, match="float32"):
        onnx_graph.export_step(model, {}, Interface(SIZE, 1, 3, SIZE))
    with pytest.raises(ValueError, match="streams is 2"):
        onnx_graph.export_step(DMNet.tiny(3), {}, Interface(SIZE, 2, 3, SIZE))


def test_a_stream_without_a_frame_is_left_alone_and_resets_forget(artifact):
    program = load_artifact(artifact)
    memory = program.init_memory(jax.random.key(0))
    for index in range(4):
        frame = tiny_run.picture(index, SIZE)[0][None]
        memory, _ = program.step(memory, frame)
    before = [x.copy() for x in memory]
    memory, out = program.step(memory, frame, active=np.zeros(1, bool))
    assert (out.labels == NO_LABEL).all() and not out.admitted[0]
    for expected, actual in zip(before, memory, strict=True):
        np.testing.assert_array_equal(expected, actual)

    body = json.loads(artifact.with_name(f"{artifact.name}.json").read_text())
    names = [leaf["name"] for leaf in body["memory"]]
    for what, counts in ((KEEP, (5, 5)), (RESET_LOCAL, (1, 6)), (RESET_ALL, (1, 1))):
        memory, _ = program.step(memory, frame, reset=np.full(1, what, np.uint8))
        state = dict(zip(names, memory, strict=True))
        assert (state[".local.count"][0], state[".global_.count"][0]) == counts


def test_sessions_of_one_program_are_isolated_and_repeatable(artifact):
    program = load_artifact(artifact)
    frames = [tiny_run.picture(i, SIZE)[0] for i in range(8)]
    with Session(program) as one, Session(program) as two:
        for frame in frames:
            actual, expected = one.step(frame), two.step(frame)
            np.testing.assert_array_equal(actual.labels, expected.labels)
            assert actual.confidence == expected.confidence
        one.reset()
        again = [one.step(frame).confidence for frame in frames]
        assert again[-1] == expected.confidence


def test_files_have_checksums_and_do_not_describe_this_machine(artifact):
    for line in artifact.with_name(f"{artifact.name}.sha256").read_text().splitlines():
        digest, name = line.split()
        content = (artifact.parent / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
    for file in files_of(artifact):
        content = file.read_bytes()
        assert str(tiny_run.ROOT).encode() not in content
        assert b"/tmp/" not in content and b".py" not in content


def test_damage_in_any_file_is_detected(artifact, tmp_path):
    for damaged in files_of(artifact):
        for file in files_of(artifact):
            content = bytearray(file.read_bytes())
            if file == damaged:
                content[len(content) // 2] ^= 1
            (tmp_path / file.name).write_bytes(content)
        with pytest.raises(ArtifactError, match=artifact.name):
            load_artifact(tmp_path / artifact.name)


def copied(artifact, folder, change):
    """The artifact with a changed description and content, and valid checksums."""
    contents = {file.suffix: file.read_bytes() for file in files_of(artifact)[:-2]}
    body = json.loads(artifact.with_name(f"{artifact.name}.json").read_text())
    change(contents, body)
    path = folder / artifact.name
    described = json.dumps(body).encode()
    for suffix, content in contents.items():
        path.with_suffix(suffix).write_bytes(content)
    path.with_name(f"{path.name}.json").write_bytes(described)
    sums = [hashlib.sha256(x).hexdigest() for x in (*contents.values(), described)]
    path.with_name(f"{path.name}.sha256").write_text("\n".join(sums))
    return path


def more_slots(contents, body):
    for part in ("memory", "inputs", "outputs"):
        for tensor in body[part]:
            if "global_" in tensor["name"] and len(tensor["shape"]) > 1:
                tensor["shape"][1] += 2
            if tensor["name"] == "draw":
                tensor["shape"][1] += 2


def other_labels(contents, body):
    body["label_size"] = [64, 64]
    for tensor in body["outputs"]:
        if tensor["name"] == "labels":
            tensor["shape"] = [1, 64, 64]


def half(contents, body):
    suffix = next(iter(contents))
    contents[suffix] = contents[suffix][: len(contents[suffix]) // 2]


@pytest.mark.parametrize("change", [more_slots, other_labels, half])
def test_program_that_differs_from_its_description_is_one_error_line(
    artifact, tmp_path, change
):
    path = copied(artifact, tmp_path, change)
    with pytest.raises(ArtifactError, match=f"{path.name}: cannot be opened") as caught:
        load_artifact(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inside", [False, True])
def test_external_weight_files_are_refused(artifact, tmp_path, inside):
    """Weights of the graph or of a subgraph: no checksum covers an external file."""
    if artifact.suffix != ".onnx":
        pytest.skip("is ONNX's")

    def outside(contents, body):
        model = onnx.load_model_from_string(contents[".onnx"])
        tensor = max(model.graph.initializer, key=lambda x: len(x.raw_data))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "weights.bin"
        (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        if inside:
            node = model.graph.node.add(op_type="If", input=["active"], output=["x"])
            graph = node.attribute.add(name="then_branch", type=5).g
            graph.node.add(op_type="Constant").attribute.add(name="value").t.CopyFrom(
                tensor
            )
            model.graph.initializer.remove(tensor)
        contents[".onnx"] = model.SerializeToString()

    path = copied(artifact, tmp_path, outside)
    with pytest.raises(ArtifactError, match="stored in an external file"):
        load_artifact(path)


def test_missing_runtime_error_names_the_extra(artifact, monkeypatch):
    extra = {".onnx": "onnxruntime", ".xml": "openvino"}[artifact.suffix]
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(ArtifactError, match=r'pip install -e "\.\[\w+\]"'):
        load_artifact(artifact)
    with pytest.raises(ArtifactError, match="must be a .jax, .onnx, .xml file"):
        load_artifact("model.pt")


@pytest.mark.skipif(not HAS_OPENVINO, reason="needs the extra openvino")
def test_bfloat16_falls_back_to_float32_where_unsupported(paper, tmp_path, monkeypatch):
    from dmnet_jax.streaming import runtimes

    monkeypatch.setattr(runtimes, "has_bf16", lambda: False)
    path = written(tmp_path, "openvino", *paper, dtype="bf16")
    assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
    with pytest.warns(UserWarning, match="runs the step in float32"):
        assert load_artifact(path).interface.size == SIZE


@pytest.mark.parametrize("kind", FORMATS)
def test_ring_index_is_exact_after_weeks_of_frames(kind):
    """The counter exceeds the integers of float32, in which some runtimes compute."""
    capacity = 225

    def push(stamp: Any, count: Any, now: Any, where: Any) -> Any:
        rings = mem.RingBuffer(slots={}, stamp=stamp, count=count)
        rings = jax.vmap(
            lambda ring, now, where: mem.push(ring, {}, stamp=now, where=where)
        )(rings, now, where)
        return rings.stamp, rings.count

    inputs = {
        "stamp": jax.ShapeDtypeStruct((1, capacity), np.int32),
        "count": jax.ShapeDtypeStruct((1,), np.int32),
        "now": jax.ShapeDtypeStruct((1,), np.int32),
        "where": jax.ShapeDtypeStruct((1,), bool),
    }
    run = runner(kind, convert(push, inputs, ["next_stamp", "next_count"]))
    stamp = np.arange(capacity, dtype=np.int32)[None]
    limit = 2**23 // capacity * capacity
    for count in (capacity, limit - 300, limit - 2, limit - 1):
        now = 2**31 - 2
        feed = {"stamp": stamp, "count": count, "now": now, "where": 1}
        got_stamp, got_count = run(feed)
        expected = stamp.copy()
        expected[0, count % capacity] = now
        np.testing.assert_array_equal(got_stamp, expected)
        assert (got_count[0] - count - 1) % capacity == 0 and got_count[0] >= capacity


def runner(kind: str, model: bytes) -> Any:
    dtypes = {"where": bool}

    def arrays(feed):
        return {
            name: np.atleast_1d(np.asarray(x, dtypes.get(name, np.int32)))
            for name, x in feed.items()
        }

    if kind == "onnx":
        import onnxruntime

        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(model, providers=providers)
        return lambda feed: session.run(None, arrays(feed))
    core = openvino_core()
    compiled = core.compile_model(core.read_model(model, b""), "CPU")
    return lambda feed: list(compiled(arrays(feed)).values())

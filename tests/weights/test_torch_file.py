"""The PyTorch reader: supported content, and everything that it refuses."""

import ast
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dmnet_jax.weights.layout import WeightsError
from dmnet_jax.weights.torch_file import read_torch, run

ROOT = Path(__file__).parents[2]


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, attribute: str) -> bytes:
    return b"c" + f"{module}\n{attribute}\n".encode()


def storage(kind: str, key: str, count: int) -> bytes:
    fields = text("storage") + name("torch", kind) + text(key) + text("cpu")
    return b"(" + fields + number(count) + b"tQ"


def tensor(
    kind: str,
    key: str,
    count: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int = 0,
) -> bytes:
    """The pickle instructions that torch.save writes for one tensor."""
    arguments = storage(kind, key, count) + number(offset)
    arguments += numbers(size) + numbers(stride) + b"\x89"
    arguments += name("collections", "OrderedDict") + b")R"
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR"


def state_dict(entries: dict[str, bytes]) -> bytes:
    items = b"".join(text(key) + value for key, value in entries.items())
    return name("collections", "OrderedDict") + b")R(" + items + b"u"


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def archive(
    path: Path,
    body: bytes,
    data: dict[str, bytes],
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("run/data.pkl", program(body))
        file.writestr("run/byteorder", b"little")
        for key, content in data.items():
            file.writestr(f"run/data/{key}", content)
        file.writestr("run/version", b"3\n")
    return path


SIX = np.arange(6, dtype=np.float32)
ONE = state_dict({"w": tensor("FloatStorage", "0", 6, (2, 3), (3, 1))})


def test_reads_sizes_strides_offsets_and_shared_storages(tmp_path: Path) -> None:
    body = state_dict(
        {
            "rows": tensor("FloatStorage", "0", 6, (2, 3), (3, 1)),
            "columns": tensor("FloatStorage", "0", 6, (3, 2), (1, 3)),
            "part": tensor("FloatStorage", "0", 6, (2,), (2,), offset=1),
            "count": tensor("LongStorage", "1", 1, (), ()),
            "none": tensor("FloatStorage", "0", 6, (0, 3), (3, 1)),
        }
    )
    data = {"0": SIX.tobytes(), "1": np.int64(7).tobytes()}
    state = read_torch(archive(tmp_path / "a.pth", body, data))
    np.testing.assert_array_equal(state["rows"], SIX.reshape(2, 3))
    np.testing.assert_array_equal(state["columns"], SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(state["part"], [1, 3])
    assert state["count"] == 7 and state["count"].dtype == np.int64
    assert state["none"].shape == (0, 3)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("DoubleStorage", np.array([1.5, -2], np.float64)),
        ("HalfStorage", np.array([1.5, -2], np.float16)),
        ("IntStorage", np.array([1, -2], np.int32)),
        ("ByteStorage", np.array([1, 255], np.uint8)),
        ("BoolStorage", np.array([True, False])),
    ],
)
def test_reads_every_kind(tmp_path: Path, kind: str, values: np.ndarray) -> None:
    body = state_dict({"w": tensor(kind, "0", 2, (2,), (1,))})
    state = read_torch(archive(tmp_path / "a.pt", body, {"0": values.tobytes()}))
    np.testing.assert_array_equal(state["w"], values)
    assert state["w"].dtype == values.dtype


def test_reads_bfloat16_as_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2")
    body = state_dict({"w": tensor("BFloat16Storage", "0", 3, (3,), (1,))})
    state = read_torch(archive(tmp_path / "a.pth", body, {"0": halves.tobytes()}))
    np.testing.assert_array_equal(state["w"], values)


def test_finds_a_nested_prefixed_state_dict_of_parameters(tmp_path: Path) -> None:
    parameter = (
        name("torch._utils", "_rebuild_parameter")
        + tensor("FloatStorage", "0", 6, (6,), (1,))
        + b"\x88"
        + name("collections", "OrderedDict")
        + b")R\x87R"
    )
    inner = state_dict({"module.w": parameter})
    # PyTorch sets {"_metadata": ...} on a state dict; both dicts go through the memo.
    inner += b"q\x01}" + text("_metadata") + b"}q\x02sb"
    epoch = text("epoch") + b"K\x05" + text("loss") + b"G" + struct.pack(">d", 0.5)
    history = text("history") + b"](K\x01K\x02e"
    body = b"}(" + text("state_dict") + inner + epoch + history + b"u"
    state = read_torch(archive(tmp_path / "a.pth", body, {"0": SIX.tobytes()}))
    assert list(state) == ["w"]
    np.testing.assert_array_equal(state["w"], SIX)


REFUSED = {
    "os.system by GLOBAL": (
        name("os", "system") + b"(" + text("touch pwned") + b"tR",
        "os.system",
    ),
    "builtins": (name("builtins", "eval") + b"(" + text("1") + b"tR", "builtins.eval"),
    "a dotted path behind an allowed module": (
        name("torch._utils", "_rebuild_tensor_v2.__globals__"),
        "__globals__",
    ),
    "by STACK_GLOBAL": (text("os") + text("system") + b"\x93", "STACK_GLOBAL"),
    "by INST": (b"(" + text("x") + b"ios\nsystem\n", "INST"),
    "by OBJ": (b"(" + name("torch", "FloatStorage") + b"o", "OBJ"),
    "by NEWOBJ": (name("collections", "OrderedDict") + b")\x81", "NEWOBJ"),
    "by an extension code": (b"\x82\x01", "EXT1"),
    "a call of a text": (text("os.system") + b")R", "calling a str"),
    "a call of a storage": (name("torch", "FloatStorage") + b")R", "FloatStorage"),
    "a call of a dict out of the memo": (b"}q\x000h\x00)R", "not allowed"),
    "OrderedDict with contents": (
        name("collections", "OrderedDict") + b"(" + text("x") + b"tR",
        "OrderedDict",
    ),
    "state on a name": (name("torch", "FloatStorage") + b"}b", "state is set"),
    "state that is no dict": (b"}" + text("x") + b"b", "state is set"),
    "items on a name": (name("torch", "FloatStorage") + b"K\x01K\x02s", "not a dict"),
    "a key that cannot be hashed": (b"}]K\x01s", "key"),
    "an unset memo slot": (b"h\x07", "before it is set"),
    "a mark in the memo": (b"(q\x00", "from an empty stack"),
    "an empty stack": (b"", "from an empty stack"),
    "a missing mark": (b"K\x01t", "from an empty stack"),
    "an odd number of items": (b"}(K\x01u", "not a dict"),
    "an unknown storage": (b"(" + text("storage") + b"tQ", "unknown kind"),
    "another protocol": (b"\x80\x04}", "protocol 4"),
    "a tensor of no storage": (
        name("torch._utils", "_rebuild_tensor_v2") + b"(K\x01K\x00))tR",
        "not a storage",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, message = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    path = archive(tmp_path / "bad.pth", body, {})
    with pytest.raises(WeightsError, match="bad.pth: run/data.pkl: ") as caught:
        read_torch(path)
    assert message in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.pth"]


def test_refuses_a_small_graph_with_an_exponential_repr(tmp_path: Path) -> None:
    body = b"]q\x00"
    for slot in range(1, 60):
        body += b"](" + b"h" + bytes([slot - 1]) + b"h" + bytes([slot - 1]) + b"e"
        body += b"q" + bytes([slot])
    path = archive(tmp_path / "a.pth", body + b")R", {})
    with pytest.raises(WeightsError, match="calling a list"):
        read_torch(path)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((7,), (1,), 0),
        ((6,), (1,), 1),
        ((2, 3), (4, 1), 0),
        ((2, 3), (3,), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 1),
        ((2**20, 2**20), (0, 0), 0),
        ((1,) * 9, (1,) * 9, 0),
    ],
)
def test_refuses_a_tensor_outside_its_storage(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    body = state_dict({"w": tensor("FloatStorage", "0", 6, size, stride, offset)})
    with pytest.raises(WeightsError, match="a.pth"):
        read_torch(archive(tmp_path / "a.pth", body, {"0": SIX.tobytes()}))


@pytest.mark.parametrize("data", [{}, {"0": SIX.tobytes()[:-4]}, {"0": b"x" * 4096}])
def test_refuses_a_storage_of_another_size(
    tmp_path: Path, data: dict[str, bytes]
) -> None:
    with pytest.raises(WeightsError, match="entry run/data/0"):
        read_torch(archive(tmp_path / "a.pth", ONE, data))


def test_refuses_compressed_entries(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth", ONE, {"0": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="is compressed"):
        read_torch(path)


def test_refuses_a_directory_that_claims_more_than_the_file(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth", ONE, {"0": SIX.tobytes()})
    content = bytearray(path.read_bytes())
    # Both sizes of the storage's record in the zip's directory, now 1 GiB.
    record = content.rindex(b"run/data/0") - 46
    content[record + 20 : record + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="declare more bytes"):
        read_torch(path)


def test_refuses_a_damaged_storage(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth", ONE, {"0": SIX.tobytes()})
    content = bytearray(path.read_bytes())
    content[content.index(SIX.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged zip file.*run/data/0"):
        read_torch(path)


def test_refuses_every_truncation(tmp_path: Path) -> None:
    content = archive(tmp_path / "a.pth", ONE, {"0": SIX.tobytes()}).read_bytes()
    cut = tmp_path / "cut.pth"
    for length in range(0, len(content), 37):
        cut.write_bytes(content[:length])
        with pytest.raises(WeightsError, match="cut.pth"):
            read_torch(cut)
    for length in range(2, len(program(ONE)) - 1):
        with pytest.raises(WeightsError):
            run(program(ONE)[:length], lambda kind, key, count: SIX)


def test_any_changed_byte_is_refused_or_gives_plain_values() -> None:
    """A changed program is refused or gives plain values, and never anything else."""
    original = program(ONE)
    for position in range(len(original)):
        for value in range(0, 256, 5):
            changed = bytearray(original)
            changed[position] = value
            try:
                run(bytes(changed), lambda kind, key, count: SIX)
            except WeightsError:
                pass


def test_refuses_files_before_pytorch_1_6(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    with pytest.raises(WeightsError, match="old.pth.*before 1.6"):
        read_torch(path)


def test_refuses_content_that_is_not_a_state_dict(tmp_path: Path) -> None:
    body = b"}(" + text("epoch") + b"K\x05u"
    with pytest.raises(WeightsError, match="'epoch' is not a named tensor"):
        read_torch(archive(tmp_path / "a.pth", body, {}))
    with pytest.raises(FileNotFoundError, match="missing.pth: no such file"):
        read_torch(tmp_path / "missing.pth")


def test_no_project_file_imports_an_unpickler() -> None:
    forbidden = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib"}
    files = [
        *ROOT.glob("dmnet_jax/**/*.py"),
        *ROOT.glob("data_pipelines/**/*.py"),
        *ROOT.glob("*.py"),
    ]
    assert len(files) > 20
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            imported: list[str] = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            for module in imported:
                assert module.split(".")[0] not in forbidden, (file, module)

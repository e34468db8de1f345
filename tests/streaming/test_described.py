"""Damaged descriptions of exported programs are refused in one line."""

import copy
import json
import random

import pytest

from dmnet_jax.streaming.bytecode import check_bytecode
from dmnet_jax.streaming.described import FILES, read_description

MEMORY = [
    (".local.slots", [1, 2, 1, 2, 256], "float32"),
    (".local.stamp", [1, 2], "int32"),
    (".local.count", [1], "int32"),
    (".global_.slots.key", [1, 5, 1, 2, 64], "float32"),
    (".global_.slots.value", [1, 5, 1, 2, 128], "float32"),
    (".global_.stamp", [1, 5], "int32"),
    (".global_.count", [1], "int32"),
    (".frame", [1], "int32"),
    (".key", [1, 2], "uint32"),
]
GIVEN = [
    ("frames", [1, 32, 64, 3], "uint8"),
    ("active", [1], "bool"),
    ("reset", [1], "uint8"),
]
MADE = [
    ("labels", [1, 32, 64], "uint8"),
    ("confidence", [1], "float32"),
    ("similarity", [1], "float32"),
    ("admitted", [1], "bool"),
]


def arrays(tensors, before=""):
    return [
        {"name": f"{before}{name}", "shape": [*shape], "dtype": dtype}
        for name, shape, dtype in tensors
    ]


def described(suffix):
    """The description as an export writes it."""
    stored = [leaf for leaf in MEMORY if leaf[0] != ".key"]
    inputs, outputs = arrays(MEMORY + GIVEN), arrays(MEMORY + MADE)
    if suffix != ".jax":
        draw = [("draw", [1, 5], "float32")]
        inputs = arrays(stored, "memory") + arrays(GIVEN + draw)
        outputs = arrays(stored, "next_memory") + arrays(MADE)
    return {
        "size": [32, 64],
        "streams": 1,
        "num_classes": 3,
        "label_size": [32, 64],
        "memory": arrays(MEMORY),
        "inputs": inputs,
        "outputs": outputs,
        "dtype": "fp32",
        "files": FILES[suffix],
    }


def read(body, suffix=".onnx"):
    return read_description(json.dumps(body).encode(), suffix)


@pytest.mark.parametrize("suffix", FILES)
def test_exported_descriptions_are_read(suffix):
    actual = read(described(suffix), suffix)
    assert actual.interface == ((32, 64), 1, 3, (32, 64))
    assert actual.memories == (True, True) and len(actual.memory) == len(MEMORY)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("size",), [32, 60], "multiples of 32"),
        (("size",), [32, 64, 3], r"size: must be \[height, width\]"),
        (("size",), [True, 64], r"size: must be"),
        (("size",), [0, 64], "positive"),
        (("size",), [32, 10**9], "size: "),
        (("label_size",), [10**5, 10**5], "label_size: .*million"),
        (("streams",), 0, "streams: must be 1 to"),
        (("streams",), 2, "is not for 2 streams|must contain"),
        (("num_classes",), 300, "num_classes: must be"),
        (("num_classes",), "3", "num_classes: must be"),
        (("files",), ["../../other.onnx"], "files: must be"),
        (("memory",), [], "inputs: expected 3 arrays"),
        (("memory", 0, "shape"), [1, 10**9, 10**4], "memory: .* GB"),
        (("memory", 0, "shape"), [1, -5], "has the invalid shape"),
        (("memory", 0, "shape"), [1] * 99, "not a valid array"),
        (("memory", 0, "dtype"), "object", "unsupported dtype"),
        (("memory", 8, "shape"), [1, 4], "must contain '.key'"),
        (("memory", 1, "name"), ".local.slots", "same name"),
        (("memory",), "." * 99, "must be a list"),
        (("inputs", 1, "shape"), [1, 3], "inputs: must be"),
        (("outputs",), [], "outputs: expected 12 arrays"),
        (("outputs", 3, "name"), "next", "outputs: must be"),
        (("dtype",), "fp8", "dtype: must be"),
        (("dtype",), ["fp32"], "dtype: must be"),
    ],
)
def test_invalid_values_name_their_field(place, value, message):
    body = described(".onnx")
    *path, last = place
    node = body
    for key in path:
        node = node[key]
    node[last] = value
    with pytest.raises(ValueError, match=message):
        read(body)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"size":' * 50_000,
        b'{"size": ' + b"9" * 10_000 + b"}",
    ],
)
def test_content_that_is_not_a_description(content):
    with pytest.raises(ValueError, match="json|files"):
        read_description(content, ".jax")


ODD = [None, True, -1, 0, 10**13, 1e300, float("nan"), "", "x" * 500, [], {}, [[[]]]]


def damaged(body, rng):
    """The tree with one random node removed, duplicated or replaced by an odd value."""
    body = copy.deepcopy(body)
    node = body
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = rng.choice(list(keys))
        child = node[key]
        if not isinstance(child, dict | list) or not child or rng.random() < 0.3:
            break
        node = child
    what = rng.randrange(4)
    if what == 0:
        del node[key]
    elif what == 1 and isinstance(node, list):
        node.insert(key, child)
    elif what == 2 and type(child) is int:
        node[key] = child + rng.choice([-1, 1, 32, 10**6, 10**13])
    else:
        node[key] = rng.choice(ODD)
    return body


@pytest.mark.parametrize("suffix", FILES)
def test_random_damage_is_refused_or_changes_nothing(suffix):
    rng = random.Random(0)
    whole, refused = described(suffix), 0
    expected = read(whole, suffix)
    for _ in range(400):
        if rng.random() < 0.5:
            content = json.dumps(damaged(whole, rng)).encode()
        else:
            content = bytearray(json.dumps(whole).encode())
            place = rng.randrange(len(content))
            content[place] ^= 1 << rng.randrange(8)
            content = bytes(content[: rng.choice([place, len(content)])])
        try:
            actual = read_description(content, suffix)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 500
        else:
            # Two fields cannot be checked against others, and no array depends on them.
            classes = actual.interface.num_classes
            interface = expected.interface._replace(num_classes=classes)
            assert actual == expected._replace(interface=interface, dtype=actual.dtype)
    assert refused > 300


def number(value):
    """An integer in MLIR bytecode encoding: two bytes or nine."""
    if value < 2**14:
        return (value << 2 | 2).to_bytes(2, "little")
    return b"\0" + value.to_bytes(8, "little")


def bytecode(*sections):
    content = b"ML\xefR" + number(6) + b"StableHLO_v1.15.0\0"
    for kind, body in sections:
        if kind < 128:
            content += bytes([kind]) + number(len(body)) + body
        else:  # aligned
            content += bytes([kind]) + number(len(body)) + number(16)
            content += b"\xcb" * (-len(content) % 16) + body
    return content


WHOLE = bytecode((1, b"names" * 9), (130, bytes(20_000)), (3, b""), (0, b"texts"))


def test_bytecode_with_consistent_lengths():
    check_bytecode(WHOLE)


@pytest.mark.parametrize("length", [0, 3, 4, 5, 12, 24, 60, 90, 10_000, -1])
def test_bytecode_truncated_or_with_trailing_bytes(length):
    for content in (WHOLE[:length], WHOLE[:length] + bytes(7)):
        with pytest.raises(ValueError, match="damaged or truncated"):
            check_bytecode(content)


def test_bytecode_with_a_damaged_section_table():
    outline = [*range(4), *range(6, 15), 24, 25, 26, 72, 73]
    for place in outline:
        content = bytearray(WHOLE)
        content[place] ^= 0x55
        with pytest.raises(ValueError, match="damaged"):
            check_bytecode(bytes(content))
    twice = bytecode((1, b"a"), (1, b"b"))
    with pytest.raises(ValueError, match="damaged"):
        check_bytecode(twice)

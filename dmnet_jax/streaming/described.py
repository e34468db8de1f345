"""The JSON description of an exported program, validated before use.

The description lists the inputs and outputs, and buffers are allocated from it.
Therefore every field is checked against the other fields or against what the program
itself declares. This detects damage and mistakes, not malicious programs: treat an
exported file like any other executable.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from data_pipelines.io.images import size_fault
from dmnet_jax.streaming.letterbox import MAX_LABELS
from dmnet_jax.streaming.program import NO_LABEL, OUTPUTS, Interface, Memories

FILES = {".jax": [".jax"], ".onnx": [".onnx"], ".xml": [".xml", ".bin"]}
"""Suffixes of a program's files, by the suffix of the file to open."""

DTYPES = ("fp32", "bf16", "int8")

MAX_BYTES = 2**36
"""Maximum bytes of the memory of all streams, and of their frames."""

MAX_TEXT = 2**22
"""Maximum bytes of a description or a list of checksums."""

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "int32": 4, "uint32": 4, "uint8": 1}
_MAX_STREAMS = 4096
_MAX_LEAVES = 64

# Leaves of a `DualMemory`. Networks with other memories are exported to StableHLO only.
_DUAL = (".local", ".reference", ".global_", ".frame")


class Tensor(NamedTuple):
    """A named array of a step.

    Attributes:
        name: name of the memory leaf, input or output.
        shape: the shape, fully static.
        dtype: dtype name, such as "float32".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


class Description(NamedTuple):
    """Description of an exported step.

    Attributes:
        interface: sizes of the step.
        memory: leaves of the memory, in order.
        inputs: inputs, in order.
        outputs: outputs, in order.
        dtype: compute precision of an OpenVINO step, one of `DTYPES`.
    """

    interface: Interface
    memory: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    dtype: str

    @property
    def memories(self) -> Memories:
        """Which memories have slots."""
        names = [leaf.name for leaf in self.memory]
        return Memories(
            any(name.startswith(".local.slots") for name in names),
            any(name.startswith(".global_.slots") for name in names),
        )


def read_description(content: bytes, suffix: str) -> Description:
    """Parses the JSON description of a program whose file ends in `suffix`.

    Raises:
        ValueError: the JSON is damaged or a field is invalid; the message names it.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .json is not valid JSON ({error})") from error
    if not isinstance(body, dict):
        raise ValueError("its .json is not a JSON object")
    if body.get("files") != FILES[suffix]:
        raise ValueError(
            f"files: must be {FILES[suffix]}, not {_short(body.get('files'))}"
        )
    interface = Interface(
        _size(body, "size"),
        _number(body, "streams", 1, _MAX_STREAMS),
        _number(body, "num_classes", 2, NO_LABEL),
        _size(body, "label_size"),
    )
    _check_sizes(interface)
    memory = _tensors(body, "memory")
    _check_memory(memory, interface.streams, suffix)
    inputs, outputs = _expected(interface, memory, suffix)
    for name, expected in (("inputs", inputs), ("outputs", outputs)):
        _check_same(name, _tensors(body, name), expected)
    dtype = body.get("dtype", "fp32")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: must be {', '.join(DTYPES)}, not {_short(dtype)}")
    return Description(interface, memory, inputs, outputs, dtype)


def check_declared(
    description: Description, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> None:
    """Checks that the description matches what the program itself declares.

    Raises:
        ValueError: they differ; the message names the array.
    """
    _check_same("inputs", inputs, description.inputs)
    _check_same("outputs", outputs, description.outputs)


def _check_same(
    where: str, actual: Sequence[Tensor], expected: Sequence[Tensor]
) -> None:
    if len(actual) != len(expected):
        raise ValueError(
            f"{where}: expected {len(expected)} arrays, found {len(actual)}"
        )
    for tensor, expected_tensor in zip(actual, expected, strict=True):
        if tensor != expected_tensor:
            raise ValueError(
                f"{where}: must be {_format(expected_tensor)}, not {_format(tensor)}"
            )


def _format(tensor: Tensor) -> str:
    return f"{tensor.name[:80]!r} {tensor.dtype[:20]}{list(tensor.shape)}"


def _number(body: dict[str, Any], name: str, least: int, most: int) -> int:
    value = body.get(name)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name}: must be {least} to {most}, not {_short(value)}")
    return value


def _size(body: dict[str, Any], name: str) -> tuple[int, int]:
    match body.get(name):
        case [int(height), int(width)] if bool not in (type(height), type(width)):
            return height, width
        case value:
            raise ValueError(f"{name}: must be [height, width], not {_short(value)}")


def _check_sizes(interface: Interface) -> None:
    for name, size in zip(
        ("size", "label_size"), (interface.size, interface.label_size), strict=True
    ):
        fault = size_fault(*size, MAX_LABELS) if min(size) > 0 else "must be positive"
        if fault:
            raise ValueError(f"{name}: {fault}")
        if 3 * size[0] * size[1] * interface.streams > MAX_BYTES:
            raise ValueError(f"{name}: too large for {interface.streams} streams")
    if any(side % 32 for side in interface.size):
        raise ValueError(f"size: {list(interface.size)} must be multiples of 32")


def _tensors(body: dict[str, Any], name: str) -> tuple[Tensor, ...]:
    """Parses a list of arrays; checks field types but not the shapes' consistency."""
    items = body.get(name)
    if not isinstance(items, list) or len(items) > _MAX_LEAVES:
        raise ValueError(f"{name}: must be a list of up to {_MAX_LEAVES} arrays")
    tensors = []
    for item in items:
        if not isinstance(item, dict) or set(item) != {"name", "shape", "dtype"}:
            raise ValueError(f"{name}: each array must have name, shape and dtype")
        label, shape, dtype = item["name"], item["shape"], item["dtype"]
        valid = isinstance(label, str) and isinstance(dtype, str)
        if not valid or not isinstance(shape, list) or len(shape) > 8:
            raise ValueError(f"{name}: {_short(item)} is not a valid array")
        if not all(type(side) is int and 0 <= side < 2**31 for side in shape):
            raise ValueError(
                f"{name}: {_short(label)} has the invalid shape {_short(shape)}"
            )
        tensors.append(Tensor(label, tuple(shape), dtype))
    return tuple(tensors)


def _check_memory(memory: tuple[Tensor, ...], streams: int, suffix: str) -> None:
    names = [leaf.name for leaf in memory]
    if len(set(names)) != len(names):
        raise ValueError("memory: two leaves have the same name")
    required: dict[str, tuple[tuple[int, ...], str]] = {}
    if any(name.startswith(_DUAL) for name in names):
        required = {".key": ((streams, 2), "uint32"), ".frame": ((streams,), "int32")}
    leaves = {leaf.name: (leaf.shape, leaf.dtype) for leaf in memory}
    for name, leaf_type in required.items():
        if leaves.get(name) != leaf_type:
            raise ValueError(
                f"memory: must contain {_format(Tensor(name, *leaf_type))}"
            )
    total = 0
    for leaf in memory:
        if leaf.dtype not in _ITEM_BYTES:
            raise ValueError(f"memory: {_format(leaf)} has an unsupported dtype")
        if leaf.shape[:1] != (streams,):
            raise ValueError(f"memory: {_format(leaf)} is not for {streams} streams")
        total += math.prod(leaf.shape) * _ITEM_BYTES[leaf.dtype]
    if total > MAX_BYTES:
        raise ValueError(
            f"memory: {total / 1e9:.1f} GB is above the limit of {MAX_BYTES / 1e9:.1f}"
        )


def _expected(
    interface: Interface, memory: tuple[Tensor, ...], suffix: str
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Returns the inputs and outputs of a step with these sizes and this memory."""
    streams = interface.streams
    given = [
        Tensor("frames", (streams, *interface.size, 3), "uint8"),
        Tensor("active", (streams,), "bool"),
        Tensor("reset", (streams,), "uint8"),
    ]
    kinds = ("uint8", "float32", "float32", "bool")
    shapes = ((streams, *interface.label_size), *((streams,),) * 3)
    made = list(map(Tensor, OUTPUTS, shapes, kinds))
    if suffix == ".jax":
        return (*memory, *given), (*memory, *made)
    held = [leaf for leaf in memory if leaf.name != ".key"]
    slots = [leaf for leaf in held if leaf.name.startswith(".global_.slots")]
    if any(len(leaf.shape) < 2 for leaf in slots):
        raise ValueError("memory: .global_.slots must be [streams, slots, ...]")
    # Random numbers that select what is read from the global memory.
    draw = [Tensor("draw", (1, slots[0].shape[1]), "float32")] if slots else []
    before = [leaf._replace(name=f"memory{leaf.name}") for leaf in held]
    after = [leaf._replace(name=f"next_memory{leaf.name}") for leaf in held]
    return (*before, *given, *draw), (*after, *made)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

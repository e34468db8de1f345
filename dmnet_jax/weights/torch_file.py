"""Reads the tensors of a PyTorch checkpoint safely, without PyTorch or unpickling.

A `.pth` file is a zip archive with a pickle program for a stack machine, `data.pkl`,
and the tensors' bytes in entries `data/0`, `data/1`, ... Unpickling such a program can
call any Python function. Instead, it is interpreted here by a minimal machine with the
instructions and names that checkpoints need. It imports nothing and calls nothing
outside this file, and rejects any other instruction or name.
"""

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dmnet_jax.weights.layout import WeightsError

MAX_PROGRAM_BYTES = 16 << 20
_MAX_RANK = 8

# bfloat16 is read as the upper half of a float32.
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _Name(NamedTuple):
    """A global name in the program. It is only a placeholder; nothing is imported."""

    module: str
    name: str


_ORDERED_DICT = _Name("collections", "OrderedDict")
_TENSOR = _Name("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = _Name("torch._utils", "_rebuild_parameter")
_ALLOWED = {_ORDERED_DICT, _TENSOR, _PARAMETER} | {
    _Name("torch", storage) for storage in _STORAGES
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()

Storage = Callable[[str, str, int], np.ndarray]


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the state dict of a PyTorch `.pth` or `.pt` file.

    A state dict nested under "state_dict", "model" or "net" is found, and the prefix
    "module." of all names (DataParallel) is removed.

    Args:
        path: a file written by `torch.save` of PyTorch 1.6 or later.

    Returns:
        Read-only arrays by PyTorch's names, axes in PyTorch's order; bfloat16 as
        float32.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is not a PyTorch file, is damaged, or contains anything
            but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise WeightsError(
            f"{path}: not a PyTorch zip file; if it was written by PyTorch before 1.6 "
            "or is truncated, load it with PyTorch and torch.save it again"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _state_dict(_checkpoint(archive, path), path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path}: damaged zip file: {error}") from error


def _checkpoint(archive: zipfile.ZipFile, path: Path) -> Any:
    entries = {info.filename: info for info in archive.infolist()}
    # Uncompressed entries that fit the file size cannot expand to more memory.
    total = sum(info.file_size for info in entries.values())
    for info in entries.values():
        if info.compress_type != zipfile.ZIP_STORED:
            raise WeightsError(f"{path}: entry {info.filename} is compressed")
        if info.file_size != info.compress_size:
            raise WeightsError(f"{path}: entry {info.filename} has inconsistent sizes")
    if total > path.stat().st_size:
        raise WeightsError(f"{path}: entries declare more bytes than the file has")
    programs = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(programs) != 1:
        raise WeightsError(
            f"{path}: contains {len(programs)} entries */data.pkl; expected 1"
        )
    root = programs[0].removesuffix("data.pkl")
    if entries[programs[0]].file_size > MAX_PROGRAM_BYTES:
        raise WeightsError(f"{path}: entry {programs[0]} is too large for a checkpoint")
    order = "<"
    if f"{root}byteorder" in entries:
        order = ">" if archive.read(f"{root}byteorder").strip() == b"big" else "<"
    storages: dict[tuple[str, str], np.ndarray] = {}

    def storage(kind: str, key: str, count: int) -> np.ndarray:
        if (kind, key) not in storages:
            name = f"{root}data/{key}"
            if name not in entries:
                raise WeightsError(f"{path}: entry {name} is missing")
            dtype = np.dtype(order + _STORAGES[kind])
            if entries[name].file_size != count * dtype.itemsize:
                raise WeightsError(
                    f"{path}: entry {name} has {entries[name].file_size} bytes; "
                    f"{count} values of {kind} need {count * dtype.itemsize}"
                )
            flat = np.frombuffer(archive.read(name), dtype)
            flat = flat.astype(dtype.newbyteorder("="), copy=False)
            if kind == "BFloat16Storage":
                flat = (flat.astype(np.uint32) << 16).view(np.float32)
            storages[kind, key] = flat
        return storages[kind, key]

    try:
        return run(archive.read(programs[0]), storage)
    except WeightsError as error:
        prefix = "" if str(error).startswith(str(path)) else f"{path}: {programs[0]}: "
        raise WeightsError(f"{prefix}{error}") from error


def run(program: bytes, storage: Storage) -> Any:
    """Interprets a checkpoint's pickle program and returns its result.

    Args:
        program: program of pickle protocol 2, as written by `torch.save`.
        storage: function (kind, key, count) -> flat array of `count` values.

    Returns:
        Nested dicts, lists, tuples, numbers, strings and arrays.

    Raises:
        WeightsError: an instruction or name is not allowed.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def pop() -> Any:
        if not stack or stack[-1] is _MARK:
            raise WeightsError("the program pops from an empty stack")
        return stack.pop()

    def pop_to_mark() -> list[Any]:
        items: list[Any] = []
        while stack and stack[-1] is not _MARK:
            items.append(stack.pop())
        if not stack:
            raise WeightsError("the program pops from an empty stack")
        stack.pop()
        return items[::-1]

    def set_items(items: list[Any]) -> None:
        target = stack[-1] if stack else None
        if not isinstance(target, dict) or len(items) % 2:
            raise WeightsError("items are set on a value that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise WeightsError("a dict key is neither a string nor a number")
            target[key] = value

    def append(items: list[Any]) -> None:
        if not stack or not isinstance(stack[-1], list):
            raise WeightsError("items are appended to a value that is not a list")
        stack[-1].extend(items)

    try:
        for opcode, argument, position in pickletools.genops(program):
            name = opcode.name
            if name == "PROTO":
                if argument != 2:
                    raise WeightsError(
                        f"pickle protocol {argument}; only 2 is supported"
                    )
            elif name == "STOP":
                return pop()
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _LITERALS:
                stack.append(argument)
            elif name == "MARK":
                stack.append(_MARK)
            elif name in _TUPLES:
                items = [pop() for _ in range(_TUPLES[name])]
                stack.append(tuple(items[::-1]))
            elif name == "TUPLE":
                stack.append(tuple(pop_to_mark()))
            elif name == "EMPTY_DICT":
                stack.append({})
            elif name == "EMPTY_LIST":
                stack.append([])
            elif name == "SETITEM":
                value, key = pop(), pop()
                set_items([key, value])
            elif name == "SETITEMS":
                set_items(pop_to_mark())
            elif name == "APPEND":
                append([pop()])
            elif name == "APPENDS":
                append(pop_to_mark())
            elif name in ("BINPUT", "LONG_BINPUT"):
                value = pop()
                memo[argument] = value
                stack.append(value)
            elif name in ("BINGET", "LONG_BINGET"):
                if argument not in memo:
                    raise WeightsError(f"value {argument} is used before it is set")
                stack.append(memo[argument])
            elif name == "GLOBAL":
                stack.append(_allowed(argument))
            elif name == "BINPERSID":
                stack.append(_storage(pop(), storage))
            elif name == "REDUCE":
                arguments, function = pop(), pop()
                stack.append(_call(function, arguments))
            elif name == "BUILD":
                # PyTorch attaches version numbers to a state dict; they are ignored.
                state = pop()
                if not (stack and isinstance(stack[-1], dict)) or not isinstance(
                    state, dict
                ):
                    raise WeightsError("state is set on a value that is not a dict")
            else:
                raise WeightsError(
                    f"instruction {name} at byte {position} is not allowed"
                )
    except WeightsError:
        raise
    except (ValueError, struct.error, OverflowError) as error:
        raise WeightsError(f"truncated or damaged: {error}") from error
    raise WeightsError("truncated or damaged: the program does not end")


def _allowed(argument: Any) -> _Name:
    name = _Name(*argument.split(" ", 1))
    if name not in _ALLOWED:
        raise WeightsError(
            f"it refers to {name.module}.{name.name}, which is not allowed; save only "
            "the state dict: torch.save(model.state_dict(), path)"
        )
    return name


def _storage(identity: Any, storage: Storage) -> tuple[np.ndarray]:
    """Resolves ("storage", kind, key, device, count) to a storage, as a 1-tuple.

    The tuple distinguishes a storage from a tensor.
    """
    match identity:
        case ("storage", _Name("torch", kind), str(key), str(), int(count)) if (
            kind in _STORAGES and count >= 0
        ):
            return (storage(kind, key, count),)
    raise WeightsError("it refers to a storage of an unknown kind")


def _call(function: Any, arguments: Any) -> Any:
    # Messages never print values created by the program: a small object graph can have
    # an unbounded representation.
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise WeightsError(f"calling a {type(function).__name__} is not allowed")
    if function == _ORDERED_DICT and not arguments:
        return {}
    if function == _TENSOR and len(arguments) >= 4:
        return _tensor(*arguments[:4])
    if function == _PARAMETER and arguments and isinstance(arguments[0], np.ndarray):
        return arguments[0]
    name = f"{function.module}.{function.name}"
    raise WeightsError(f"this call of {name} is not allowed")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """Returns a view of a storage, checked to be within its bounds."""
    match storage:
        case (np.ndarray() as flat,):
            pass
        case _:
            raise WeightsError("a tensor's data is not a storage")
    if not (
        isinstance(size, tuple)
        and isinstance(stride, tuple)
        and len(size) == len(stride) <= _MAX_RANK
        and all(type(n) is int and n >= 0 for n in (offset, *size, *stride))
    ):
        raise WeightsError("a tensor's offset, size or strides are not valid")
    count = math.prod(size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if count > flat.size or (count and last >= flat.size):
        raise WeightsError(
            f"a tensor of size {size} reaches beyond the {flat.size} values stored"
        )
    if count == 0:
        return np.zeros(size, flat.dtype)
    return np.lib.stride_tricks.as_strided(
        flat[offset:], size, [s * flat.itemsize for s in stride], writeable=False
    )


def _state_dict(checkpoint: Any, path: Path) -> dict[str, np.ndarray]:
    state = checkpoint
    for key in ("state_dict", "model", "net"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path}: contains no state dict (named tensors)")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise WeightsError(
                f"{path}: {name!r:.80} is not a named tensor; save only the state dict"
            )
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state

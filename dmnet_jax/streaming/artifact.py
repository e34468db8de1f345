"""Exported artifacts: a program for one runtime, its checksum and its interface.

    model.jax          StableHLO serialized by `jax.export`, for cpu and cuda
    model.onnx         ONNX, for ONNX Runtime
    model.xml, .bin    OpenVINO IR
    FILE.sha256        for `sha256sum -c`
    FILE.json          sizes, inputs and outputs by name, config, versions

The checksum detects accidental damage; most damaged files would still load and run. It
does not protect against tampering, because whoever changes the file can also change the
checksum. Treat an exported file like any other executable. JAX guarantees to read its
exported files for six months; archive weights as safetensors.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export

from data_pipelines.io.environment import install_command
from dmnet_jax.streaming import runtimes
from dmnet_jax.streaming.bytecode import check_bytecode
from dmnet_jax.streaming.described import (
    FILES,
    MAX_TEXT,
    Description,
    Tensor,
    check_declared,
    read_description,
)
from dmnet_jax.streaming.program import OUTPUTS, Interface, Labeled, Program

Contents = dict[str, bytes]
"""File contents of an artifact, by suffix. The first entry is the file to open."""

_MAX_PROGRAM = 2**31  # bytes per file; no runtime loads more than that from memory


class ArtifactError(ValueError):
    """Raised when an exported file cannot be used; the message says why."""


def write_artifact(
    folder: Path,
    name: str,
    contents: Contents,
    interface: Interface,
    notes: dict[str, Any],
) -> Path:
    """Writes all files of an artifact, the checksum last.

    Args:
        folder: an existing folder.
        name: file name without suffix.
        contents: contents of the program's files.
        interface: interface of the step.
        notes: JSON metadata, stored next to the interface.

    Returns:
        Path of the file to open.
    """
    path = folder / f"{name}{next(iter(contents))}"
    body = {**interface._asdict(), **notes, "files": list(contents)}
    files = {folder / f"{name}{suffix}": x for suffix, x in contents.items()}
    files[_beside(path, ".json")] = (json.dumps(body, indent=1) + "\n").encode()
    lines = [f"{_digest(content)}  {file.name}\n" for file, content in files.items()]
    files[_beside(path, ".sha256")] = "".join(lines).encode()
    for file, content in files.items():
        _replace(file, content)
    return path


def load_artifact(path: str | os.PathLike[str]) -> Program:
    """Loads an exported program and compiles it for this machine.

    Args:
        path: the `.jax`, `.onnx` or `.xml` file. Its checksum and interface (and the
            `.bin` file of an `.xml`) must be in the same folder.

    Raises:
        ArtifactError: a file is missing, damaged, or not for this machine, or its
            runtime is not installed.
    """
    path = Path(path)
    kinds = {".jax": _open_jax, ".onnx": runtimes.open_onnx, ".xml": runtimes.open_ir}
    if path.suffix not in kinds:
        raise ArtifactError(f"{path}: must be a {', '.join(kinds)} file")
    try:
        contents, description = _read(path)
        return kinds[path.suffix](contents, description)
    except ImportError as error:
        extra = {".onnx": "onnx", ".xml": "openvino"}.get(path.suffix, "")
        raise ArtifactError(
            f"{path}: {error.name} is not installed; {install_command(extra)}"
        ) from error
    except ArtifactError:
        raise
    except Exception as error:  # the runtimes raise many types for a bad file
        text = " ".join(f"{error}".split())[:500] or type(error).__name__
        raise ArtifactError(f"{path}: cannot be opened ({text})") from error


def _read(path: Path) -> tuple[Contents, Description]:
    """Reads all files of an artifact once; returns contents and description."""
    try:
        described = _content(_beside(path, ".json"), MAX_TEXT)
        sums = _content(_beside(path, ".sha256"), MAX_TEXT).decode()
        contents = {
            suffix: _content(path.with_suffix(suffix), _MAX_PROGRAM)
            for suffix in FILES[path.suffix]
        }
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: cannot be read together with its .sha256 and .json ({error}); "
            "export it again with python -m dmnet_jax.export"
        ) from error
    digests = [_digest(content) for content in (*contents.values(), described)]
    if digests != [line.split(" ")[0] for line in sums.splitlines()]:
        raise ArtifactError(
            f"{path}: sha256 does not match the .sha256 file; a file is damaged or "
            "was changed: copy all files of the artifact again"
        )
    return contents, read_description(described, path.suffix)


def _content(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path.name} is larger than {most} bytes")
    return content


def files_of(path: Path) -> list[Path]:
    """Returns all files of an artifact, in the order in which to move them."""
    suffixes = json.loads(_beside(path, ".json").read_text())["files"]
    programs = [path.with_suffix(suffix) for suffix in suffixes]
    return [*programs, _beside(path, ".json"), _beside(path, ".sha256")]


def _open_jax(contents: Contents, description: Description) -> Program:
    exported = export.deserialize(bytearray(contents[".jax"]))
    backend = jax.default_backend()
    platform = {"gpu": "cuda"}.get(backend, backend)
    if platform not in exported.platforms:
        platforms = " and ".join(exported.platforms)
        raise ValueError(f"was exported for {platforms}, not for {platform}")
    check_declared(
        description,
        _declared(description.inputs, exported.in_avals),
        _declared(description.outputs, exported.out_avals),
    )
    check_bytecode(exported.mlir_module_serialized)
    leaves = len(description.memory)
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in exported.in_avals]
    donated = tuple(range(leaves))
    call = jax.jit(exported.call, donate_argnums=donated).lower(*shapes).compile()

    def step(memory: Any, *inputs: Any) -> tuple[Any, Labeled]:
        outputs = call(*memory, *inputs)
        memory, outputs = outputs[:leaves], outputs[leaves:]
        labeled = dict(zip(OUTPUTS, outputs, strict=True))
        return memory, Labeled(probabilities=None, **labeled)

    return Program(
        description.interface,
        runtimes.empty_memory(description),
        step,
        memories=description.memories,
    )


def _declared(named: Sequence[Tensor], avals: Sequence[Any]) -> list[Tensor]:
    """Names StableHLO's unnamed arrays by their position."""
    names = [tensor.name for tensor in named] + [""] * len(avals)
    return [
        Tensor(name, tuple(aval.shape), str(aval.dtype))
        for name, aval in zip(names, avals, strict=False)
    ]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)

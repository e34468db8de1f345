"""An exported step: a program for one runtime, its checksum, its interface.

    model.jax          StableHLO as `jax.export` serialises it: cpu and cuda in one file
    model.onnx         ONNX, for ONNX Runtime
    model.xml, .bin    OpenVINO IR
    FILE.sha256        for `sha256sum -c`
    FILE.json          sizes, inputs and outputs by name, config, versions

The checksum is what makes the file safe to use: a damaged one mostly still loads and
runs. JAX reads its files for six months; weights are archived as safetensors.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
from jax import export

from dmnet_jax.streaming import runtimes
from dmnet_jax.streaming.program import OUTPUTS, Interface, Labelled, Program

Contents = dict[str, bytes]
"""What the files of one artefact hold, by suffix; the first is the one to open."""


class ArtefactError(ValueError):
    """An exported file that cannot be used; the message says why."""


def write_artefact(
    folder: Path,
    name: str,
    contents: Contents,
    interface: Interface,
    notes: dict[str, Any],
) -> Path:
    """Writes all files of an artefact, the checksum last.

    Args:
        folder: that exists.
        name: of the files, without a suffix.
        contents: of the program's files.
        interface: of the step.
        notes: JSON, put beside the interface.

    Returns:
        The file to open.
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


def load_artefact(path: str | os.PathLike[str]) -> Program:
    """The program of an exported file, compiled for this machine.

    Args:
        path: the `.jax`, `.onnx` or `.xml` file; its checksum and interface (and the
            `.bin` of an `.xml`) lie beside it.

    Raises:
        ArtefactError: a file is missing, damaged, or not for this machine; or its
            runtime is not installed.
    """
    path = Path(path)
    kinds = {".jax": _open_jax, ".onnx": runtimes.open_onnx, ".xml": runtimes.open_ir}
    if path.suffix not in kinds:
        raise ArtefactError(f"{path}: must be a {', '.join(kinds)} file")
    try:
        described = _beside(path, ".json").read_bytes()
        body = json.loads(described)
        contents = {s: path.with_suffix(s).read_bytes() for s in body["files"]}
        lines = _beside(path, ".sha256").read_text().splitlines()
        interface = Interface(
            tuple(body["size"]),
            body["streams"],
            body["num_classes"],
            tuple(body["label_size"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"{path}: cannot be read with its .sha256 and .json ({error}); export it "
            "again with python -m dmnet_jax.export"
        ) from error
    found = [_digest(content) for content in (*contents.values(), described)]
    if found != [line.split(" ")[0] for line in lines]:
        raise ArtefactError(
            f"{path}: sha256 differs from the one beside it; the file is damaged or "
            "was changed: copy all of its files again"
        )
    try:
        return kinds[path.suffix](contents, interface, body)
    except ImportError as error:
        extra = {".onnx": "onnx", ".xml": "openvino"}.get(path.suffix, "")
        raise ArtefactError(
            f"{path}: {error.name} is not installed; pip install 'dmnet-jax[{extra}]'"
        ) from error
    except Exception as error:  # many kinds, all of one meaning
        raise ArtefactError(f"{path}: cannot be opened ({error})") from error


def files_of(path: Path) -> list[Path]:
    """All files of an artefact, in the order in which they are to be put in place."""
    suffixes = json.loads(_beside(path, ".json").read_text())["files"]
    programs = [path.with_suffix(suffix) for suffix in suffixes]
    return [*programs, _beside(path, ".json"), _beside(path, ".sha256")]


def _open_jax(contents: Contents, interface: Interface, body: dict) -> Program:
    exported = export.deserialize(bytearray(contents[".jax"]))
    backend = jax.default_backend()
    platform = {"gpu": "cuda"}.get(backend, backend)
    if platform not in exported.platforms:
        raise ValueError(f"is for {' and '.join(exported.platforms)}, not {platform}")
    leaves = len(body["memory"])
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in exported.in_avals]
    donated = tuple(range(leaves))
    call = jax.jit(exported.call, donate_argnums=donated).lower(*shapes).compile()

    def step(memory: Any, *inputs: Any) -> tuple[Any, Labelled]:
        outputs = call(*memory, *inputs)
        memory, outputs = outputs[:leaves], outputs[leaves:]
        labelled = dict(zip(OUTPUTS, outputs, strict=True))
        return memory, Labelled(probabilities=None, **labelled)

    return Program(interface, runtimes.empty_memory(body, interface.streams), step)


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

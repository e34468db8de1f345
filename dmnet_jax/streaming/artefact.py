"""An exported step: `FILE.jax` (serialised StableHLO), its checksum, its interface.

    model.jax          what `jax.export` serialises: cpu and cuda in one file
    model.jax.sha256   for `sha256sum -c`
    model.json         sizes, inputs and outputs by name, config, versions

The checksum is what makes the file safe to use: a damaged one mostly still loads and
runs. JAX reads such files for six months; weights are archived as safetensors.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, export

from dmnet_jax import memory as mem
from dmnet_jax.streaming.program import Interface, Labelled, Program

_OUTPUTS = ("labels", "confidence", "similarity", "admitted")


class ArtefactError(ValueError):
    """An exported file that cannot be used; the message says why."""


def write_artefact(
    path: Path, program: bytes, interface: Interface, notes: dict[str, Any]
) -> str:
    """Writes the three files, the checksum last; returns it."""
    digest = hashlib.sha256(program).hexdigest()
    body = {**interface._asdict(), "sha256": digest, **notes}
    _replace(path, program)
    _replace(path.with_suffix(".json"), (json.dumps(body, indent=1) + "\n").encode())
    _replace(_sidecar(path), f"{digest}  {path.name}\n".encode())
    return digest


def load_artefact(path: str | os.PathLike[str]) -> Program:
    """The program of an exported file, compiled for this machine.

    Args:
        path: the `.jax` file; its checksum and interface lie beside it.

    Raises:
        ArtefactError: a file is missing, damaged, or not for this machine.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        wanted = _sidecar(path).read_text().split()[:1]
        body = json.loads(path.with_suffix(".json").read_text())
        interface = Interface(
            tuple(body["size"]),
            body["streams"],
            body["num_classes"],
            tuple(body["label_size"]),
        )
        names, recorded = body["memory"], body["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"{path}: cannot be read with its .sha256 and .json ({error}); export it "
            "again with python -m dmnet_jax.export"
        ) from error
    if [hashlib.sha256(content).hexdigest()] != wanted or wanted != [recorded]:
        raise ArtefactError(
            f"{path}: sha256 differs from the one beside it; the file is damaged or "
            "was changed: copy all three again"
        )
    try:
        exported = export.deserialize(bytearray(content))
    except Exception as error:  # many kinds, all of one meaning
        raise ArtefactError(f"{path}: this JAX cannot read it ({error})") from error
    backend = jax.default_backend()
    platform = {"gpu": "cuda"}.get(backend, backend)
    if platform not in exported.platforms:
        raise ArtefactError(
            f"{path}: is for {' and '.join(exported.platforms)}, not {platform}"
        )
    return from_exported(exported, interface, names)


def from_exported(
    exported: export.Exported, interface: Interface, names: list[str]
) -> Program:
    """A program around `exported`, whose first inputs are the memory's leaves."""
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in exported.in_avals]
    donated = tuple(range(len(names)))
    call = jax.jit(exported.call, donate_argnums=donated).lower(*shapes).compile()

    def step(memory: Any, *inputs: Any) -> tuple[Any, Labelled]:
        outputs = call(*memory, *inputs)
        memory, outputs = outputs[: len(names)], outputs[len(names) :]
        labelled = Labelled(
            probabilities=None, **dict(zip(_OUTPUTS, outputs, strict=True))
        )
        return memory, labelled

    @jax.jit
    def init(key: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key, interface.streams)
        raw = jax.random.key_data(jax.vmap(lambda k: jax.random.fold_in(k, 0))(keys))
        leaves = []
        for name, shape in zip(names, shapes, strict=False):
            fill = mem.EMPTY if name.endswith(".stamp") else 0
            empty = jnp.full(shape.shape, fill, shape.dtype)
            leaves.append(raw if name == ".key" else empty)
        return tuple(leaves)

    return Program(interface, init, step)


def outputs_of(labelled: Labelled) -> tuple[Array, ...]:
    """In the order in which an exported step gives them."""
    return tuple(getattr(labelled, name) for name in _OUTPUTS)


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")

"""Weight files: .npz, .safetensors, .pth and .pt in; .safetensors out."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from data_pipelines.files import replaced, write_text
from dmnet_jax.weights.layout import WeightsError, flatten
from dmnet_jax.weights.torch_file import read_torch

MAX_NPZ_BYTES = 4 << 30
_MAX_HEADER_BYTES = 16 << 20


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a weight file, by the names it gives them.

    A `.safetensors` file with a checksum beside it (`FILE.sha256`) is checked first.

    Raises:
        FileNotFoundError: no such file.
        WeightsError: another suffix, a damaged file, or a checksum that differs.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".safetensors":
        _check_sum(path)
        try:
            return load_file(path)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise WeightsError(f"{path}: damaged safetensors file: {error}") from error
    if path.suffix in (".pth", ".pt"):
        return read_torch(path)
    raise WeightsError(
        f"{path}: weights are read from .npz, .safetensors, .pth and .pt files"
    )


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text notes in a `.safetensors` file's header; none in any other file.

    Raises:
        WeightsError: the header is damaged.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        return {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise WeightsError(f"{path}: damaged safetensors file: header too large")
        try:
            return json.loads(file.read(length)).get("__metadata__", {})
        except (ValueError, AttributeError) as error:
            raise WeightsError(f"{path}: damaged safetensors file: {error}") from error


def write_safetensors(
    path: str | Path, variables: Mapping[str, Any], metadata: Mapping[str, str]
) -> str:
    """Writes nested or flat variables, and the file's checksum as `FILE.sha256`.

    The file appears whole or not at all. `sha256sum -c FILE.sha256` reads the
    checksum.

    Args:
        path: ends in `.safetensors`.
        variables: arrays by name; nested names are joined by "/".
        metadata: notes, such as origin and licence.

    Returns:
        The checksum in hexadecimal.

    Raises:
        WeightsError: another suffix, or no such folder.
        WriteError: it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: the name of the output must end in .safetensors")
    if not path.parent.is_dir():
        raise WeightsError(f"{path}: folder {path.parent} does not exist")
    arrays = {n: np.asarray(a, order="C") for n, a in flatten(variables).items()}
    data = save(arrays, metadata=dict(metadata))
    digest = hashlib.sha256(data).hexdigest()
    with replaced(path) as partial:
        partial.write_bytes(data)
    write_text(_sidecar(path), f"{digest}  {path.name}\n")
    return digest


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            size = sum(info.file_size for info in archive.zip.infolist())
            if size > MAX_NPZ_BYTES:
                raise WeightsError(f"{path}: unfolds into {size} bytes, too many")
            return {name: archive[name] for name in archive.files}
    except WeightsError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise WeightsError(f"{path}: damaged .npz file: {error}") from error


def _check_sum(path: Path) -> None:
    sidecar = _sidecar(path)
    if not sidecar.is_file():
        return
    expected = sidecar.read_text().split()[:1]
    if expected != [_sha256(path)]:
        raise WeightsError(
            f"{path}: sha256 differs from {sidecar.name}; the file is damaged or was "
            "changed: fetch both again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")

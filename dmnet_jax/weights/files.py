"""Reads weights from .npz, .safetensors, .pth and .pt files; writes .safetensors."""

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from data_pipelines.io.files import atomic_write, write_text
from dmnet_jax.weights.layout import WeightsError, flatten
from dmnet_jax.weights.torch_file import read_torch

MAX_NPZ_BYTES = 4 << 30
_MAX_HEADER_BYTES = 16 << 20


# Array names of variances, in any framework.
_VARIANCES = ("var", "running_var", "moving_variance")

# Exceptions that NumPy and safetensors raise for invalid files.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SafetensorError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a weight file, by their names in the file.

    A `.safetensors` file with a checksum file (`FILE.sha256`) is verified first.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the suffix is not supported, the file is damaged, the checksum
            does not match, or values are invalid: NaN, infinity, negative variances.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".npz":
        arrays = _read_npz(path)
    elif path.suffix == ".safetensors":
        try:
            # Read once, so that the hashed bytes are the ones used.
            data = path.read_bytes()
            _check_sum(path, data)
            arrays = load(data)
        except WeightsError:
            raise
        except _DAMAGE as error:
            raise _damaged(path, "safetensors", error) from error
    elif path.suffix in (".pth", ".pt"):
        arrays = read_torch(path)
    else:
        raise WeightsError(
            f"{path}: weights are read from .npz, .safetensors, .pth and .pt files"
        )
    for name, array in arrays.items():
        if fault := _fault_of(name, array):
            raise WeightsError(f"{path}: {ascii(name)[1:-1]} {fault}")
    return arrays


def _fault_of(name: str, array: np.ndarray) -> str:
    """Returns what is wrong with the values of an array; empty if nothing is."""
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        return f"has dtype {array.dtype}, which is not numeric"
    with np.errstate(over="ignore"):
        values = np.asarray(array, np.float32)
    nonfinite = ~np.isfinite(values)
    if nonfinite.any():
        return (
            f"contains {values[nonfinite].flat[0]} ({np.count_nonzero(nonfinite)} of "
            f"{values.size} values are not finite); its training diverged"
        )
    last = name.replace(".", "/").rpartition("/")[2]
    if last in _VARIANCES and values.size and values.min() < 0:
        return f"contains {values.min():g}, but a variance cannot be negative"
    return ""


def _damaged(path: Path, kind: str, error: BaseException) -> WeightsError:
    details = " ".join(ascii(str(error))[1:-1].split())[:200] or type(error).__name__
    return WeightsError(f"{path}: damaged {kind} file: {details}")


def read_metadata(path: str | Path) -> dict[str, str]:
    """Reads the metadata of a `.safetensors` file; empty for other files.

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
            notes = json.loads(file.read(length)).get("__metadata__", {})
            return {str(name): str(text) for name, text in notes.items()}
        except _DAMAGE as error:
            raise _damaged(path, "safetensors", error) from error


def write_safetensors(
    path: str | Path, variables: Mapping[str, Any], metadata: Mapping[str, str]
) -> str:
    """Writes nested or flat variables, and the file's checksum as `FILE.sha256`.

    The file is written atomically. Verify it with `sha256sum -c FILE.sha256`.

    Args:
        path: path ending in `.safetensors`.
        variables: arrays by name; nested names are joined by "/".
        metadata: metadata, such as origin and license.

    Returns:
        The checksum in hexadecimal.

    Raises:
        WeightsError: the suffix is not supported, or the folder does not exist.
        WriteError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: the name of the output must end in .safetensors")
    if not path.parent.is_dir():
        raise WeightsError(f"{path}: folder {path.parent} does not exist")
    arrays = {n: np.asarray(a, order="C") for n, a in flatten(variables).items()}
    data = save(arrays, metadata=dict(metadata))
    digest = hashlib.sha256(data).hexdigest()
    with atomic_write(path) as partial:
        partial.write_bytes(data)
    write_text(_sidecar(path), f"{digest}  {path.name}\n")
    return digest


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here, because NumPy leaves its own handle open for a damaged file.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            size = sum(info.file_size for info in archive.zip.infolist())
            if size > MAX_NPZ_BYTES:
                raise WeightsError(
                    f"{path}: decompresses to {size} bytes; at most {MAX_NPZ_BYTES} "
                    "are read"
                )
            return {name: archive[name] for name in archive.files}
    except WeightsError:
        raise
    except _DAMAGE as error:
        raise _damaged(path, ".npz", error) from error


def _check_sum(path: Path, data: bytes) -> None:
    sidecar = _sidecar(path)
    if not sidecar.is_file():
        return
    expected = sidecar.read_text(errors="replace").split()[:1]
    if expected != [hashlib.sha256(data).hexdigest()]:
        raise WeightsError(
            f"{path}: sha256 does not match {sidecar.name}; the file is damaged or was "
            "changed: fetch both files again"
        )


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")

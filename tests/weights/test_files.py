"""Weight files: round trips, checksums, and messages for damaged ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmnet_jax.weights.__main__ import main
from dmnet_jax.weights.files import read_metadata, read_weights, write_safetensors
from dmnet_jax.weights.layout import WeightsError, flatten, rearrange, unflatten

NESTED = st.recursive(
    st.integers(0, 9).map(lambda n: np.full((n % 3, 2), n, np.float32)),
    lambda inner: st.dictionaries(
        st.text("abc_1", min_size=1), inner, min_size=1, max_size=3
    ),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


@given(NESTED)
def test_unflatten_undoes_flatten(variables: dict) -> None:
    flat = flatten(variables)
    again = flatten(unflatten(flat))
    assert list(again) == list(flat)
    assert all(again[name] is flat[name] for name in flat)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_unflatten_refuses_an_array_that_is_a_group(names: tuple[str, str]) -> None:
    with pytest.raises(WeightsError, match="an array and a group"):
        unflatten({name: np.zeros(1) for name in names})


def test_safetensors_round_trip(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    variables = {
        "params": {
            "a": {"kernel": generator.normal(size=(3, 3, 2, 4)).astype(np.float32)},
            "b": generator.normal(size=(4, 3)).astype(np.float32).T,
        },
        "thresholds": {"min_confidence": np.float32(-0.08)},
        "count": np.arange(3),
    }
    path = tmp_path / "w.safetensors"
    digest = write_safetensors(path, variables, {"licence": "none"})
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "w.safetensors",
        "w.safetensors.sha256",
    ]
    assert (tmp_path / "w.safetensors.sha256").read_text().split() == [
        digest,
        "w.safetensors",
    ]
    read = read_weights(path)
    expected = flatten(variables)
    assert set(read) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
    assert read_metadata(path) == {"licence": "none"}


def test_changed_byte_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"w": np.zeros(4, np.float32)}, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="w.safetensors: sha256 does not match"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".pt"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    for content in (b"", b"not weights at all", b"PK\x03\x04" + bytes(40)):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=f"broken{suffix}"):
            read_weights(path)
    with pytest.raises(FileNotFoundError, match="gone"):
        read_weights(tmp_path / f"gone{suffix}")


def test_npz_with_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(WeightsError, match="w.npz"):
        read_weights(path)


def test_unknown_suffixes_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(WeightsError, match="w.h5.*are read from"):
        read_weights(tmp_path / "w.h5")
    with pytest.raises(WeightsError, match="must end in .safetensors"):
        write_safetensors(tmp_path / "w.npz", {}, {})
    with pytest.raises(WeightsError, match="none does not exist"):
        write_safetensors(tmp_path / "none" / "w.safetensors", {}, {})


def test_rearrange_transposes_kernels() -> None:
    """The kernel of one convolution in each framework's axis order gives one array."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 5, 7)).astype(np.float32)
    depthwise = kernel[:, :, :1]
    ours = rearrange(
        {
            "conv.weight": kernel.transpose(3, 2, 0, 1),
            "depthwise.weight": depthwise.transpose(3, 2, 0, 1),
            "conv/kernel": kernel,
            "depthwise/depthwise_kernel": depthwise.transpose(0, 1, 3, 2),
        },
        {
            "conv.weight": "a",
            "depthwise.weight": "b",
            "conv/kernel": "c",
            "depthwise/depthwise_kernel": "d",
        },
        source="the test",
    )
    for name, expected in zip("abcd", [kernel, depthwise] * 2, strict=True):
        np.testing.assert_array_equal(ours[name], expected)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("a.weight", np.nan, "nan"),
        ("a/kernel", np.inf, "inf"),
        ("bn/moving_mean", -np.inf, "-inf"),
        ("bn.running_var", -1e-3, "variance cannot be negative"),
        ("batch_stats/stem_norm/var", -1.0, "variance cannot be negative"),
    ],
)
def test_implausible_values_are_refused(
    tmp_path: Path, suffix: str, name: str, value: float, message: str
) -> None:
    array = np.ones((3, 4), np.float32)
    array[1, 2] = value
    path = tmp_path / f"w.{suffix}"
    if suffix == "npz":
        np.savez(path, **{name: array, "good": np.ones(2, np.float32)})
    else:
        write_safetensors(path, {name: array}, {})
    pattern = rf"w\.{suffix}: {name} contains .*{message}"
    with pytest.raises(WeightsError, match=pattern):
        read_weights(path)
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(path), str(out)]) == 2 and not out.exists()


def test_non_numeric_arrays_are_refused(tmp_path: Path) -> None:
    for array in (np.array(["text"]), np.array([1j]), np.array([0], "M8[s]")):
        np.savez(tmp_path / "w.npz", w=array)
        with pytest.raises(WeightsError, match="not numeric"):
            read_weights(tmp_path / "w.npz")
    np.save(tmp_path / "w.npy", np.ones(3))
    (tmp_path / "w.npy").rename(tmp_path / "w.npz")
    with pytest.raises(WeightsError, match="damaged .npz"):
        read_weights(tmp_path / "w.npz")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_random_damage_raises_only_weights_error(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    whole = tmp_path / f"whole.{suffix}"
    arrays = {f"a/{i}/var": rng.random((2, 3, i + 1), np.float32) for i in range(4)}
    if suffix == "npz":
        np.savez(whole, **arrays)
    else:
        write_safetensors(whole, arrays, {"encoder": "keras"})
    data, bad = whole.read_bytes(), tmp_path / f"bad.{suffix}"
    for number in range(600):
        changed = bytearray(data)
        # Half of the changes are in the header, where numbers are sizes.
        most = len(data) if number % 2 else 200
        for place in rng.integers(0, most, rng.integers(1, 5)):
            changed[place] = rng.integers(256)
        bad.write_bytes(
            changed[: rng.integers(len(data))] if not number % 7 else changed
        )
        try:
            result = read_weights(bad)
            read_metadata(bad)
            assert all(np.isfinite(array).all() for array in result.values())
        except WeightsError as error:
            assert str(bad) in str(error) and "\n" not in str(error)


def test_a_header_that_nests_or_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    huge = b'{"a":{"dtype":"F32","shape":[10000000000000],"data_offsets":[0,4]}}'
    for header in (b"[" * 50_000 + b"]" * 50_000, huge, b'{"__metadata__":[1]}', b"1"):
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        with pytest.raises(WeightsError, match=r"w\.safetensors: damaged"):
            read_weights(path)
            read_metadata(path)

"""Export of the streaming step as StableHLO with `jax.export`.

Inputs are the leaves of the memory, then frames, active and reset. Outputs are the
leaves of the memory, then labels, confidence, similarity and admitted. The weights are
embedded.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax import Array, export

from dmnet_jax.streaming.program import OUTPUTS, Interface, input_shapes, labeled_step

PLATFORMS = ("cpu", "cuda")


def export_step(
    model: Any, variables: Any, interface: Interface
) -> tuple[bytes, dict[str, Any]]:
    """Returns the serialized step for all platforms, and its JSON description.

    Args:
        model: any `models.protocol.VideoSegmenter`.
        variables: variables of the model.
        interface: sizes of the step.

    Raises:
        ValueError: a part of the step runs on the host and cannot be exported.
    """
    folded, variables = model.folded(variables)
    memory, *inputs = input_shapes(folded, interface)
    leaves, structure = jax.tree.flatten(memory)

    def step(*arguments: Any) -> tuple[Array, ...]:
        held = jax.tree.unflatten(structure, arguments[: len(leaves)])
        rest = arguments[len(leaves) :]
        held, labeled = labeled_step(
            *(folded, variables, interface, False, held), *rest
        )
        outputs = [getattr(labeled, name) for name in OUTPUTS]
        return (*jax.tree.leaves(held), *outputs)

    with _no_source_paths():
        try:
            exported = export.export(jax.jit(step), platforms=PLATFORMS)(
                *leaves, *inputs
            )
        except NotImplementedError as error:
            raise ValueError(
                f"{type(model).__name__} computes a part of its step on the host "
                f"(optical flow), which cannot be exported ({error})"
            ) from error
    return bytes(exported.serialize()), _describe(exported, leaf_names(memory))


def leaf_names(tree: Any) -> list[str]:
    """Returns leaf names, such as ".global_.slots.key", in the order of the leaves."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in paths]


def typed(names: Iterable[str], shapes: Iterable[Any]) -> list[dict[str, Any]]:
    """Returns names, shapes and dtypes of arrays as JSON."""
    return [
        {"name": name, "shape": list(x.shape), "dtype": str(x.dtype)}
        for name, x in zip(names, shapes, strict=True)
    ]


def _describe(exported: export.Exported, names: list[str]) -> dict[str, Any]:
    """Describes the module for runtimes other than JAX.

    `kept` lists the indices of the module's inputs; unused inputs are dropped from it.
    """
    inputs = typed([*names, "frames", "active", "reset"], exported.in_avals)
    return {
        "memory": inputs[: len(names)],
        "inputs": inputs,
        "outputs": typed([*names, *OUTPUTS], exported.out_avals),
        "kept": list(exported.module_kept_var_idx),
        "platforms": list(exported.platforms),
    }


@contextmanager
def _no_source_paths() -> Iterator[None]:
    """Omits source files and lines of this machine from the exported operations."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)

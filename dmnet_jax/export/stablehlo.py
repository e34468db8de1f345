"""The streaming step as StableHLO, by `jax.export`.

Inputs are the memory's leaves, then frames, active and reset; outputs the memory's
leaves, then labels, confidence, similarity and admitted. The weights are inside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax import Array, export

from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.streaming.artefact import outputs_of
from dmnet_jax.streaming.folding import fold
from dmnet_jax.streaming.program import Interface, input_shapes, labelled_step

PLATFORMS = ("cpu", "cuda")


def export_step(
    model: DMNet, variables: Any, interface: Interface
) -> tuple[export.Exported, list[str]]:
    """The step for every platform, and the names of the memory's leaves."""
    weights = fold(model, variables)
    memory, *inputs = input_shapes(model, interface)
    leaves, structure = jax.tree.flatten(memory)

    def step(*arguments: Any) -> tuple[Array, ...]:
        held = jax.tree.unflatten(structure, arguments[: len(leaves)])
        rest = arguments[len(leaves) :]
        held, labelled = labelled_step(model, weights, interface, False, held, *rest)
        return (*jax.tree.leaves(held), *outputs_of(labelled))

    with _no_source_paths():
        exported = export.export(jax.jit(step), platforms=PLATFORMS)(*leaves, *inputs)
    return exported, leaf_names(memory)


def leaf_names(tree: Any) -> list[str]:
    """Such as ".global_.slots.key", in the order of the leaves."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in paths]


def describe(exported: export.Exported, names: list[str]) -> dict[str, Any]:
    """JSON of inputs and outputs, for a runtime that is not JAX.

    `kept` lists the inputs that the module has: unused ones are dropped from it.
    """
    outputs = [*names, "labels", "confidence", "similarity", "admitted"]
    inputs = [*names, "frames", "active", "reset"]

    def typed(names: list[str], avals: Any) -> list[dict[str, Any]]:
        return [
            {"name": name, "shape": list(aval.shape), "dtype": str(aval.dtype)}
            for name, aval in zip(names, avals, strict=True)
        ]

    return {
        "memory": names,
        "inputs": typed(inputs, exported.in_avals),
        "outputs": typed(outputs, exported.out_avals),
        "kept": list(exported.module_kept_var_idx),
        "platforms": list(exported.platforms),
    }


@contextmanager
def _no_source_paths() -> Iterator[None]:
    """Operations are not marked with files and lines of this machine."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)

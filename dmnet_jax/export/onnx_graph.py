"""Export of the streaming step as an ONNX graph, for one stream.

Inputs are the leaves of the memory except the PRNG key, then `frames`, `active` and
`reset`, and with a global memory `draw`: float32 [1, global_size], uniform in [0, 1),
drawn again for every frame, which selects what is read. Outputs are the leaves of the
next memory and the arrays of `streaming.program.Labeled`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dmnet_jax.export.onnx_convert import convert
from dmnet_jax.export.stablehlo import leaf_names, typed
from dmnet_jax.streaming.program import OUTPUTS, Interface, input_shapes, labeled_step

_KEY = ".key"


def export_step(
    model: Any, variables: Any, interface: Interface
) -> tuple[bytes, dict[str, Any]]:
    """Returns the step as a serialized ONNX model, and its JSON description.

    Args:
        model: any `models.protocol.VideoSegmenter`.
        variables: variables of the model.
        interface: sizes of the step.

    Raises:
        ValueError: the model's dtype is not float32, the interface is for several
            streams, or the step contains an unsupported operation.
    """
    if jnp.dtype(model.dtype) != jnp.float32:
        raise ValueError(
            f"model.dtype is {jnp.dtype(model.dtype)}; ONNX export supports float32 "
            "networks only: export this one with --format jax"
        )
    if interface.streams != 1:
        raise ValueError(
            f"streams is {interface.streams}; ONNX export supports one stream only"
        )
    model, variables = model.folded(variables)
    memory, frames, active, reset = input_shapes(model, interface)
    shapes, structure = jax.tree.flatten(memory)
    names = leaf_names(memory)
    leaves = dict(zip(names, shapes, strict=True))
    state = {name: x for name, x in leaves.items() if name != _KEY}
    step_inputs = {"frames": frames, "active": active, "reset": reset}
    inputs = {f"memory{name}": x for name, x in state.items()} | step_inputs
    draw = None
    if model.memories.global_:
        draw = "draw"
        inputs[draw] = jax.ShapeDtypeStruct((1, model.global_size), jnp.float32)
    unused = {name: x for name, x in leaves.items() if name == _KEY}
    outputs = [*(f"next_memory{name}" for name in state), *OUTPUTS]

    def step(*arguments: Array) -> list[Array]:
        values = dict(zip([*state, *step_inputs, *unused], arguments, strict=True))
        memory = jax.tree.unflatten(structure, [values[name] for name in names])
        memory, labeled = labeled_step(
            *(model, variables, interface, False, memory),
            *(values[name] for name in step_inputs),
        )
        new_leaves = dict(zip(names, jax.tree.leaves(memory), strict=True))
        next_state = [new_leaves[name] for name in state]
        return [*next_state, *(getattr(labeled, name) for name in OUTPUTS)]

    arguments = [*state.values(), *step_inputs.values(), *unused.values()]
    results = dict(zip(outputs, jax.eval_shape(step, *arguments), strict=True))
    content = convert(step, inputs, outputs, unused=unused, draw=draw)
    return content, {
        "memory": typed(leaves, leaves.values()),
        "inputs": typed(inputs, inputs.values()),
        "outputs": typed(results, results.values()),
    }

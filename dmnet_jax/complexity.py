"""Parameters and multiply-adds of every row of the paper's Table 2.

    python -m dmnet_jax.complexity
    python -m dmnet_jax.complexity --size 256 320 --classes 4

Nothing is computed: layers are counted from their shapes while JAX traces them.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from data_pipelines.command_line import exit_with_error, parse_flags, program_name


class Complexity(NamedTuple):
    """Cost of one call.

    Attributes:
        convolution: multiply-adds of convolutions, without bias.
        attention: multiply-adds of the products of queries, keys and values.
        norm: operations of batch norm, two an element.
        transposed: multiply-adds of transposed convolutions, without bias.
    """

    convolution: int = 0
    attention: int = 0
    norm: int = 0
    transposed: int = 0

    @property
    def multiply_adds(self) -> int:
        """Of everything but batch norm."""
        return self.convolution + self.attention + self.transposed

    @property
    def inflated(self) -> int:
        """As a common tool counts, which Table 1 agrees with: transposed convolutions
        at their output's size (four times too many), no attention."""
        return self.convolution + 4 * self.transposed


class Row(NamedTuple):
    """A row of the paper: switches, and its printed million parameters and G."""

    name: str
    switches: dict[str, Any]
    parameters: float | None
    operations: float | None


ROWS = (
    Row("base", {"local": "none", "global_memory": False}, None, 10.21),
    Row("+ ELA", {"local": "ela", "global_memory": False}, 4.05, 10.93),
    Row("+ AGA", {"local": "none", "global_memory": True}, None, 10.77),
    Row("DMNet (both)", {"local": "ela", "global_memory": True}, 4.38, 11.53),
    Row("local: NL", {"local": "nl", "global_memory": False}, 6.40, 11.82),
    Row("local: CLSTM", {"local": "clstm", "global_memory": False}, 7.93, 17.68),
    Row("local: BLSTM", {"local": "blstm", "global_memory": False}, 3.65, 10.84),
    Row(
        "the release: BLSTM + AGA",
        {"local": "blstm", "global_memory": True},
        None,
        None,
    ),
    Row(
        "both, one projection",
        {"local": "ela", "global_memory": True, "share_key_value": True},
        None,
        None,
    ),
)

NOTES = """\
G counts as the paper seems to: multiply-adds of convolutions without bias, batch norm
as two operations an element, five frames through the recurrent cell, the earlier
frames' encoding not counted, keys and values of the four frames read and of the query,
no attention products, no resizing. That rule gives the base row and the BLSTM row to
all printed digits.
- + AGA: 0.14 G over the paper, which is the query's own key and value.
- + ELA, CLSTM: 0.045 M over the paper, 0.06 and 0.08 G; not explained.
- DMNet: the paper describes two projections (0.44 M each), its release has one
  (4.10 M); neither gives 4.38 M. Its G is 0.16 over, as much as + AGA and a rest of
  0.02; the release's network (next to last row) is within that rest.
- NL: the paper does not say what it is made of. Here: one projection, and the current
  frame reading the five of its window.
step G: what one frame of a stream costs this code, attention products and batch norm
included, if it is not admitted to the global memory; what is remembered is not
projected again. An admission costs another projection.
live G: the same of the folded network, which `dmnet_jax.streaming` compiles."""


def count(call: Callable[..., Any], *arguments: Any) -> Complexity:
    """Counts the layers that `call(*arguments)` goes through; traced, not run.

    Args:
        call: applies a Flax module.
        arguments: pytrees of arrays or `jax.ShapeDtypeStruct`s.
    """
    import jax
    from flax import linen as nn

    from dmnet_jax.nn.attention import Attention, NonLocal
    from dmnet_jax.nn.batch_norm import BatchNorm
    from dmnet_jax.nn.convolution import Conv, Deconv
    from dmnet_jax.nn.layers import Conv3x3, Dense1x1, Depthwise3x3
    from dmnet_jax.nn.recurrent import JoinedConv

    sums = {name: 0 for name in Complexity._fields}

    def intercept(following: Any, inputs: Any, keywords: Any, context: Any) -> Any:
        output = following(*inputs, **keywords)
        module = context.module
        if isinstance(module, JoinedConv) and context.method_name.startswith("of_"):
            sums["convolution"] += output.size * inputs[0].shape[-1] * module.size**2
        if context.method_name != "__call__":
            return output
        if isinstance(module, Dense1x1):
            sums["convolution"] += output.size * inputs[0].shape[-1]
        elif isinstance(module, Conv3x3):
            sums["convolution"] += output.size * inputs[0].shape[-1] * 9
        elif isinstance(module, Depthwise3x3):
            sums["convolution"] += output.size * 9
        elif isinstance(module, Conv):
            sums["convolution"] += output.size * inputs[0].shape[-1] * module.size**2
        elif isinstance(module, Deconv):
            each = module.features * module.size**2
            sums["transposed"] += inputs[0].size * each
        elif isinstance(module, Attention):
            query, _, value = inputs
            sums["attention"] += query.size * value.shape[1]
            sums["attention"] += query.shape[1] * value.size
        elif isinstance(module, BatchNorm):
            sums["norm"] += output.size * 2
        elif isinstance(module, NonLocal):
            query, memory = inputs[:2]
            positions = query.key.size // query.key.shape[-1]
            read = memory.key.size // memory.key.shape[-1] // query.key.shape[0]
            widths = memory.key.shape[-1] + memory.value.shape[-1]
            sums["attention"] += positions * read * widths
        return output

    with nn.intercept_methods(intercept):
        jax.eval_shape(call, *arguments)
    return Complexity(**sums)


@functools.cache
def variable_shapes(model: Any) -> Any:
    """Shapes of a network's variables, which do not depend on the frames' size."""
    import jax
    import jax.numpy as jnp

    key = jax.random.key(0)
    frames = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), jnp.uint8)
    return jax.eval_shape(model.init, key, _memory(model, (32, 32)), frames)


def _memory(model: Any, size: tuple[int, int]) -> Any:
    """Shapes of the memory of one stream."""
    import jax

    key = jax.random.key(0)
    return jax.eval_shape(lambda: model.init_memory(1, size, key))


def parameters(model: Any) -> int:
    """Trainable numbers: batch norm's scale and shift are, its statistics are not."""
    import jax

    return sum(x.size for x in jax.tree.leaves(variable_shapes(model)["params"]))


@functools.cache
def step_complexity(model: Any, size: tuple[int, int]) -> Complexity:
    """One frame of one stream of frames `size` = (H, W), that is not admitted."""
    return _step(model, variable_shapes(model), size)


@functools.cache
def stream_complexity(model: Any, size: tuple[int, int]) -> Complexity:
    """`step_complexity` of the folded network, which `dmnet_jax.streaming` compiles."""
    import jax
    import numpy as np

    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variable_shapes(model))
    model, variables = model.folded(zeros)
    return _step(model, variables, size)


def _step(model: Any, variables: Any, size: tuple[int, int]) -> Complexity:
    import jax

    frame = jax.ShapeDtypeStruct((1, *size, 3), "uint8")
    # A switch over paths is traced with all of them; one is counted.
    once = {"path": 0, "method": "update"} if model.lockstep else {}

    def step(*inputs: Any) -> Any:
        return model.apply(*inputs, **{"method": "step", **once})

    counted = count(step, variables, _memory(model, size), frame)
    if not model.memories.global_:
        return counted
    # Traced twice, under conditions: an empty memory's stand-in, and an admission.
    skipped = 2 * _projection(model, "stored", size)
    return counted._replace(convolution=counted.convolution - skipped)


def _projection(model: Any, method: str, size: tuple[int, int]) -> int:
    """Multiply-adds of what one frame is remembered as, "recent" or "stored"."""
    import jax

    top = jax.ShapeDtypeStruct(
        (1, size[0] // 32, size[1] // 32, model.width), "float32"
    )

    def project(*inputs: Any) -> Any:
        return model.apply(*inputs, method=method)

    return count(project, variable_shapes(model), top).convolution


def paper_operations(model: Any, size: tuple[int, int]) -> int:
    """One frame by the paper's rule (see `NOTES`), as far as it is known."""
    step = step_complexity(model, size)
    total = step.inflated + step.norm
    if model.memories.global_:
        # The step projects the query alone; the paper, each frame read as well.
        total += model.num_reads * _projection(model, "stored", size)
    if model.memories.local:
        # The same of the window's earlier frames; and the first frame goes through
        # hidden state and forget gate, which the step leaves out, as they are zero.
        total += model.local_size * _projection(model, "recent", size)
        silenced = {"nl": 0, "clstm": 36}.get(model.local, 2)
        total += silenced * model.width**2 * (size[0] // 32) * (size[1] // 32)
    return total


def table(size: tuple[int, int], classes: int) -> str:
    """Markdown: every row measured, beside the paper's numbers."""
    from dmnet_jax.metrics import format_table
    from dmnet_jax.models.dmnet import DMNet

    rows = []
    for row in ROWS:
        model: Any = DMNet(num_classes=classes, **row.switches)
        million = parameters(model) / 1e6
        operations = paper_operations(model, size) / 1e9
        rows.append(
            [
                row.name,
                f"{million:.3f}",
                _difference(million, row.parameters),
                f"{operations:.3f}",
                _difference(operations, row.operations),
                f"{sum(step_complexity(model, size)) / 1e9:.3f}",
                f"{sum(stream_complexity(model, size)) / 1e9:.3f}",
            ]
        )
    headers = ["network", "M", "paper M (ours - it)", "G", "paper G (ours - it)"]
    return format_table(rows, [*headers, "step G", "live G"])


def _difference(ours: float, paper: float | None) -> str:
    return "" if paper is None else f"{paper:.2f} ({ours - paper:+.3f})"


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to count.

    Attributes:
        size: Height and width of a frame, multiples of 32.
        classes: Number of outputs, background included.
    """

    size: tuple[int, int] = (512, 640)
    classes: int = 8


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog=program_name("python -m dmnet_jax.complexity"),
        description="Parameters and multiply-adds beside the paper's Table 2.",
    )
    if any(side < 32 or side % 32 for side in flags.size) or flags.classes < 2:
        exit_with_error("--size must be multiples of 32, --classes at least 2")
    height, width = flags.size
    print(f"{height}x{width}, {flags.classes} outputs, one frame\n")
    print(table((height, width), flags.classes))
    print(f"\n{NOTES}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

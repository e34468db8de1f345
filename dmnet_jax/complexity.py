"""Counts parameters and multiply-adds for every row of the paper's Table 2.

    python -m dmnet_jax.complexity
    python -m dmnet_jax.complexity --size 256 320 --classes 4

Nothing is computed: layers are counted by their shapes while JAX traces them.
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
        norm: operations of batch norm, two per element.
        transposed: multiply-adds of transposed convolutions, without bias.
    """

    convolution: int = 0
    attention: int = 0
    norm: int = 0
    transposed: int = 0

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of everything except batch norm."""
        return self.convolution + self.attention + self.transposed

    @property
    def inflated(self) -> int:
        """Multiply-adds as counted by a common tool, consistent with Table 1.

        The tool counts transposed convolutions at the size of their output, which is
        four times too many, and ignores attention.
        """
        return self.convolution + 4 * self.transposed


class Row(NamedTuple):
    """A row of Table 2.

    Attributes:
        name: name of the row.
        switches: fields of `DMNet`.
        parameters: printed number of parameters in millions, if any.
        operations: printed number of operations in G (10^9), if any.
    """

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
G follows the rule that the paper appears to use: it counts multiply-adds of
convolutions without bias, two operations per element of batch norm, five frames through
the recurrent cell, and keys and values of the four frames read and of the query. It
does not count the encoding of earlier frames, attention products and resizing. This
rule reproduces all printed digits of the base and BLSTM rows.
- + AGA: 0.14 G above the paper, which is the cost of the query's own key and value.
- + ELA, CLSTM: 0.045 M above the paper, 0.06 and 0.08 G; unexplained.
- DMNet: the paper describes two projections (0.44 M each), its released code has one
  (4.10 M); neither gives 4.38 M. G is 0.16 above the paper: the difference of + AGA and
  a remainder of 0.02. The released network (next to last row) is within that remainder.
- NL: the paper does not describe its structure. Here it has one projection, and the
  current frame reads the five frames of its window.
step G: cost of one frame of a stream with this code, including attention products and
batch norm, if the frame is not admitted to the global memory. Stored frames are not
projected again. An admission costs another projection.
live G: the same for the folded network, which `dmnet_jax.streaming` compiles."""


def count(call: Callable[..., Any], *arguments: Any) -> Complexity:
    """Counts the cost of all layers in `call(*arguments)`, which is traced, not run.

    Args:
        call: a function that applies a Flax module.
        *arguments: pytrees of arrays or `jax.ShapeDtypeStruct`s.
    """
    import jax
    from flax import linen as nn

    from dmnet_jax.nn.attention import Attention, NonLocal
    from dmnet_jax.nn.batch_norm import BatchNorm
    from dmnet_jax.nn.convolution import Conv, Deconv
    from dmnet_jax.nn.layers import Conv3x3, Dense1x1, Depthwise3x3
    from dmnet_jax.nn.mask_memory import MaskMemory
    from dmnet_jax.nn.recurrent import JoinedConv

    sums = {name: 0 for name in Complexity._fields}

    def intercept(next_fun: Any, inputs: Any, kwargs: Any, context: Any) -> Any:
        output = next_fun(*inputs, **kwargs)
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
            per_input = module.features * module.size**2
            sums["transposed"] += inputs[0].size * per_input
        elif isinstance(module, Attention):
            query, _, value = inputs
            sums["attention"] += query.size * value.shape[1]
            sums["attention"] += query.shape[1] * value.size
        elif isinstance(module, BatchNorm):
            sums["norm"] += output.size * 2
        elif isinstance(module, NonLocal):
            query, memory = inputs[:2]
            positions = query.key.size // query.key.shape[-1]
            batch = query.key.shape[0]
            memory_positions = memory.key.size // memory.key.shape[-1] // batch
            widths = memory.key.shape[-1] + memory.value.shape[-1]
            sums["attention"] += positions * memory_positions * widths
        elif isinstance(module, MaskMemory):
            read, frame = inputs[0].items, inputs[1]
            positions = frame.key.size // frame.key.shape[-1] // frame.key.shape[0]
            sums["attention"] += positions * (
                read.key.size + read.value.size + frame.key.size + frame.value.size
            )
        return output

    with nn.intercept_methods(intercept):
        jax.eval_shape(call, *arguments)
    return Complexity(**sums)


@functools.cache
def variable_shapes(model: Any) -> Any:
    """Returns the shapes of a network's variables, for frames of any size."""
    import jax
    import jax.numpy as jnp

    key = jax.random.key(0)
    frames = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), jnp.uint8)
    return jax.eval_shape(model.init, key, _memory(model, (32, 32)), frames)


def _memory(model: Any, size: tuple[int, int]) -> Any:
    """Returns the shapes of the memory of one stream."""
    import jax

    key = jax.random.key(0)
    return jax.eval_shape(lambda: model.init_memory(1, size, key))


def parameters(model: Any) -> int:
    """Counts the trainable parameters, which exclude batch statistics."""
    import jax

    return sum(x.size for x in jax.tree.leaves(variable_shapes(model)["params"]))


@functools.cache
def step_complexity(model: Any, size: tuple[int, int]) -> Complexity:
    """Returns the cost of a frame that is not admitted, for frames of `size` (H, W)."""
    return _step(model, variable_shapes(model), size)


@functools.cache
def stream_complexity(model: Any, size: tuple[int, int]) -> Complexity:
    """Like `step_complexity`, for the folded network that `streaming` compiles."""
    import jax
    import numpy as np

    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variable_shapes(model))
    model, variables = model.folded(zeros)
    return _step(model, variables, size)


def _step(model: Any, variables: Any, size: tuple[int, int]) -> Complexity:
    import jax

    frame = jax.ShapeDtypeStruct((1, *size, 3), "uint8")
    # A switch over paths would be traced with all branches, so one path is selected.
    one_path = {"path": 0, "method": "update"} if model.lockstep else {}

    def step(*inputs: Any) -> Any:
        return model.apply(*inputs, **{"method": "step", **one_path})

    cost = count(step, variables, _memory(model, size), frame)
    if not _stores_features(model):
        return cost
    # Two conditional projections are traced but not computed: the stand-in for an empty
    # memory, and an admission.
    skipped = 2 * _projection(model, "stored", size)
    return cost._replace(convolution=cost.convolution - skipped)


def _stores_features(model: Any) -> bool:
    """Returns whether a network has the paper's global memory."""
    return model.memories.global_ and model.stores_features


def _projection(model: Any, method: str, size: tuple[int, int]) -> int:
    """Returns the multiply-adds of storing one frame.

    Args:
        model: the network.
        method: its method, "recent" (local memory) or "stored" (global memory).
        size: (H, W) of the frame.
    """
    import jax

    top = jax.ShapeDtypeStruct(
        (1, size[0] // 32, size[1] // 32, model.width), "float32"
    )

    def project(*inputs: Any) -> Any:
        return model.apply(*inputs, method=method)

    return count(project, variable_shapes(model), top).convolution


def paper_operations(model: Any, size: tuple[int, int]) -> int:
    """Returns the operations of one frame by the paper's rule, see `NOTES`."""
    step = step_complexity(model, size)
    total = step.inflated + step.norm
    if _stores_features(model):
        # The step projects only the query; the paper also projects each frame read.
        total += model.num_reads * _projection(model, "stored", size)
    if model.memories.local:
        # Likewise for the earlier frames of the window. The paper also counts hidden
        # state and forget gate of the first frame, which the step omits as zero.
        total += model.local_size * _projection(model, "recent", size)
        omitted = {"nl": 0, "clstm": 36}.get(model.local, 2)
        total += omitted * model.width**2 * (size[0] // 32) * (size[1] // 32)
    return total


def table(size: tuple[int, int], classes: int) -> str:
    """Returns a Markdown table of all rows beside the paper's numbers."""
    from dmnet_jax.metrics import format_table
    from dmnet_jax.models.dmnet import DMNet

    rows = []
    for row in ROWS:
        model: Any = DMNet(num_classes=classes, **row.switches)
        millions = parameters(model) / 1e6
        operations = paper_operations(model, size) / 1e9
        rows.append(
            [
                row.name,
                f"{millions:.3f}",
                _difference(millions, row.parameters),
                f"{operations:.3f}",
                _difference(operations, row.operations),
                f"{sum(step_complexity(model, size)) / 1e9:.3f}",
                f"{sum(stream_complexity(model, size)) / 1e9:.3f}",
            ]
        )
    headers = ["network", "M", "paper M (difference)", "G", "paper G (difference)"]
    return format_table(rows, [*headers, "step G", "live G"])


def _difference(count: float, paper: float | None) -> str:
    """Formats the paper's number and the difference of this project's from it."""
    return "" if paper is None else f"{paper:.2f} ({count - paper:+.3f})"


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to count.

    Attributes:
        size: Height and width of a frame, multiples of 32.
        classes: Number of classes, including the background.
    """

    size: tuple[int, int] = (512, 640)
    classes: int = 8


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog=program_name("python -m dmnet_jax.complexity"),
        description="Compares parameters and multiply-adds with the paper's Table 2.",
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

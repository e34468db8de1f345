"""Formats the results of the live benchmark as Markdown."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmnet_jax.machine import SYSTEM
from dmnet_jax.metrics import format_table

NAMES = {
    "jax": "this project, XLA",
    "torch": "PyTorch eager",
    "torch.compile": "torch.compile",
    "authors": "PyTorch, the authors' way",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "export": "OpenVINO, our export",
    "export-bf16": "OpenVINO, our export, bfloat16",
    "export-int8": "OpenVINO, our export, int8",
}
"""Displayed names of the contestants."""

NOTES = """\
p50, p95, p99, max: milliseconds of a step, from uint8 frames in host memory to label
maps in host memory; `device p50`: frames and labels stay on the device. With several
frames in flight it is the time from one result to the next, and a result is that many
steps late. One frame in 16 shows a new scene and is admitted to the global memory.
`compile s`: tracing and compiling, or export and loading; `first s`: the first step;
both are excluded from the times. `GiB`: peak memory of the process, including
compilation.
`this project's time / its time`: median over rounds of the ratio of median step times
in the same round [minimum..maximum]; below 1, this project is faster. The other
runtimes run this project's PyTorch version of the network with folded norms and cached
features of the last frames, keys and values of admitted frames; maps are channels-last.
ONNX Runtime and OpenVINO run its ONNX export. The authors' way encodes four recent and
four remembered frames again for each frame. "Our export" is the output of
`python -m dmnet_jax.export`. bfloat16 and int8 round, which the benchmark's random
weights exaggerate; the columns `shipped network` compare the shipped network in that
precision with float32 on rendered scenes."""


def step_times(row: dict[str, Any], kind: str = "end_to_end") -> np.ndarray:
    """Returns the milliseconds of all steps of a contestant.

    Args:
        row: row of the contestant.
        kind: "end_to_end", or "device" if frames and labels stay on the device.
    """
    return 1e3 * np.concatenate([turn[kind] for turn in row["turns"]])


def time_ratios(reference: dict[str, Any], row: dict[str, Any]) -> list[float]:
    """Returns the reference's median step time divided by the row's, for each round."""

    def medians(turns: list[dict[str, Any]]) -> list[float]:
        return [statistics.median(turn["end_to_end"]) for turn in turns]

    pairs = zip(medians(reference["turns"]), medians(row["turns"]), strict=True)
    return [numerator / denominator for numerator, denominator in pairs]


def report(result: dict[str, Any]) -> str:
    """Returns the report: command and machine, then the tables of each frame size."""
    about, rows = result["machine"], result["rows"]
    versions: dict[str, str] = {}
    for row in rows:
        versions.update(row.get("versions", {}))
    allocators = sorted({row["allocator"] for row in rows if "allocator" in row})
    lines = [
        f"`{result['command']}`",
        "",
        f"{about['cpu']}, {about['cores']} cores and as many threads; "
        f"{', '.join(f'{name} {number}' for name, number in versions.items())}; "
        f"allocator {', '.join(allocators)}; {about['date']}",
        "",
    ]
    if SYSTEM in allocators:
        lines += [
            "**The system's allocator**: install tcmalloc (libtcmalloc-minimal4) or "
            "preload jemalloc; without them, every step requests its memory from the "
            "operating system.",
            "",
        ]
    for size in dict.fromkeys(tuple(row["size"]) for row in rows):
        size_rows = [row for row in rows if tuple(row["size"]) == size]
        lines += [f"## {size[0]}x{size[1]}", "", _steps_table(size_rows), ""]
        project_rows = [row for row in size_rows if row["contestant"] == "jax"]
        peer_rows = size_rows[len(project_rows) :]
        lines += [_lower_bound(row) for row in project_rows if "failed" not in row]
        if peer_rows and "failed" not in project_rows[0]:
            lines += ["", _peers_table(project_rows[0], peer_rows)]
        lines += [""]
    return "\n".join([*lines, NOTES])


def _steps_table(rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        name = NAMES[row["contestant"]]
        case = [name, row["dtype"], str(row["streams"]), str(row["in_flight"])]
        if "failed" in row:
            cells.append([*case, row["failed"], *[""] * 9])
            continue
        times = step_times(row)
        p50, p95, p99 = np.percentile(times, (50, 95, 99))
        device = ""
        if row["contestant"] == "jax":
            device = f"{np.median(step_times(row, 'device')):.1f}"
        cells.append(
            [
                *case,
                f"{p50:.1f}",
                f"{p95:.1f}",
                f"{p99:.1f}",
                f"{times.max():.1f}",
                str(len(times)),
                f"{1e3 * row['streams'] / p50:.1f}",
                device,
                f"{row['compile_s']:.1f}",
                f"{row['first_s']:.2f}",
                f"{row['memory_bytes'] / 2**30:.2f}",
            ]
        )
    headers = ["", "dtype", "streams", "in flight", "p50 ms", "p95", "p99", "max"]
    headers += ["steps", "FPS", "device p50", "compile s", "first s", "GiB"]
    return format_table(cells, headers)


def _lower_bound(row: dict[str, Any]) -> str:
    """Compares a step with the time of its arithmetic and memory traffic alone.

    Both are computed from the machine's measured peaks.
    """
    arithmetic = 1e3 * row["operations"] / row["peak"]
    traffic = 1e3 * row["bytes"] / row["bandwidth"]
    bound, p50 = max(arithmetic, traffic), float(np.median(step_times(row)))
    return (
        f"- {row['dtype']}, {row['streams']} streams, "
        f"{row['in_flight']} in flight: "
        f"{row['parameters'] / 1e6:.2f} M parameters, "
        f"{row['operations'] / 1e9:.2f} G multiply-adds at "
        f"{row['peak'] / 1e9:.1f} G/s (XLA's product of 2048x2048 matrices) take "
        f"{arithmetic:.0f} ms; {row['bytes'] / 1e6:.0f} MB of "
        f"weights, memory, frames and labels at {row['bandwidth'] / 1e9:.1f} GB/s take "
        f"{traffic:.1f} ms; the step takes {p50 / bound:.2f}x the larger"
    )


def _peers_table(reference: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        name = NAMES[row["contestant"]]
        if "failed" in row:
            cells.append([name, row["failed"], *[""] * 4])
            continue
        ratios, errors = time_ratios(reference, row), row["differences"]
        rounding = row.get("rounded")
        cells.append(
            [
                name,
                f"{statistics.median(ratios):.2f} "
                f"[{min(ratios):.2f}..{max(ratios):.2f}]",
                f"{errors['labels']:.1e}",
                f"{max(errors['confidence'], errors['distance']):.1e}",
                f"{rounding['labels']:.1e}" if rounding else "",
                f"{rounding['miou']:+.4f}" if rounding else "",
            ]
        )
    headers = ["", "this project's time / its time", "labels differ", "scores differ"]
    headers += ["shipped network: labels differ", "shipped network: mIoU lost"]
    notes = [row["note"] for row in rows if "note" in row]
    return "\n".join([format_table(cells, headers), *(f"\nNote: {n}." for n in notes)])

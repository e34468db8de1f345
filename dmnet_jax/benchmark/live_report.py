"""Markdown of what the live benchmark found."""

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

NOTES = """\
ms: a step from uint8 frames in host memory to label maps in host memory; `device`
p50: frames and labels stay with the device. With more frames in flight it is the time
from one result to the next, and a result is so many steps late. One frame in 16 shows a
new scene and is admitted to the global memory. `compile`: tracing and compiling, or
export and loading; `first`: the first step; neither is in the times. GiB: the most that
the process held, compilation included.
`ours / it`: median over rounds of our median by its median in the same round
[smallest..largest]; under 1 we are faster. The others run our PyTorch version of the
network with norms folded, features of the last frames, and keys and values of admitted
frames cached; maps are channels-last; ONNX Runtime and OpenVINO run its ONNX export.
The authors' way encodes four recent and four remembered frames again for each frame.
"Our export" is what `python -m dmnet_jax.export` writes. bfloat16 and int8 round, and
the benchmark's random weights exaggerate it; `trained` is the shipped network in that
type against float32, on rendered scenes: labels that differ and mIoU that is lost."""


def times(row: dict[str, Any], what: str = "end_to_end") -> np.ndarray:
    """Milliseconds of all steps of a contestant."""
    return 1e3 * np.concatenate([turn[what] for turn in row["turns"]])


def ratios(ours: dict[str, Any], row: dict[str, Any]) -> list[float]:
    """Our median step by the other's, round by round."""
    return [
        statistics.median(mine["end_to_end"]) / statistics.median(its["end_to_end"])
        for mine, its in zip(ours["turns"], row["turns"], strict=True)
    ]


def report(result: dict[str, Any]) -> str:
    """All of it: what was run and where, then the tables of each size."""
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
            "preload jemalloc; without, every step asks the system for its memory.",
            "",
        ]
    for size in dict.fromkeys(tuple(row["size"]) for row in rows):
        here = [row for row in rows if tuple(row["size"]) == size]
        lines += [f"## {size[0]}x{size[1]}", "", _steps(here), ""]
        own = [row for row in here if row["contestant"] == "jax"]
        lines += [_limits(row) for row in own if "failed" not in row]
        if len(here) > len(own) and "failed" not in own[0]:
            lines += ["", _peers(own[0], here[len(own) :])]
        lines += [""]
    return "\n".join([*lines, NOTES])


def _steps(rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        name = NAMES[row["contestant"]]
        case = [name, row["dtype"], str(row["streams"]), str(row["in_flight"])]
        if "failed" in row:
            cells.append([*case, row["failed"], *[""] * 9])
            continue
        own, spent = row["contestant"] == "jax", times(row)
        p50, p95, p99 = np.percentile(spent, (50, 95, 99))
        device = f"{np.median(times(row, 'device')):.1f}" if own else ""
        cells.append(
            [
                *case,
                f"{p50:.1f}",
                f"{p95:.1f}",
                f"{p99:.1f}",
                f"{spent.max():.1f}",
                str(len(spent)),
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


def _limits(row: dict[str, Any]) -> str:
    """The least time that work and bytes take at the machine's measured best."""
    arithmetic = 1e3 * row["operations"] / row["peak"]
    traffic = 1e3 * row["bytes"] / row["bandwidth"]
    floor, p50 = max(arithmetic, traffic), float(np.median(times(row)))
    return (
        f"- {row['dtype']}, {row['streams']} streams, "
        f"{row['in_flight']} in flight: "
        f"{row['parameters'] / 1e6:.2f} M parameters, "
        f"{row['operations'] / 1e9:.2f} G multiply-adds at "
        f"{row['peak'] / 1e9:.1f} G/s (XLA's 2048x2048 product) "
        f"{arithmetic:.0f} ms; {row['bytes'] / 1e6:.0f} MB of "
        f"weights, memory, frames and labels at {row['bandwidth'] / 1e9:.1f} GB/s "
        f"{traffic:.1f} ms; the step is {p50 / floor:.2f}x the larger"
    )


def _peers(ours: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        name = NAMES[row["contestant"]]
        if "failed" in row:
            cells.append([name, row["failed"], *[""] * 4])
            continue
        cost = row.get("rounded")
        found, differ = ratios(ours, row), row["differences"]
        cells.append(
            [
                name,
                f"{statistics.median(found):.2f} [{min(found):.2f}..{max(found):.2f}]",
                f"{differ['labels']:.1e}",
                f"{max(differ['confidence'], differ['distance']):.1e}",
                f"{cost['labels']:.1e}" if cost else "",
                f"{cost['miou']:+.4f}" if cost else "",
            ]
        )
    headers = ["", "ours / it", "labels differ", "scores differ"]
    table = format_table(cells, [*headers, "trained: labels", "trained: mIoU lost"])
    notes = [row["note"] for row in rows if "note" in row]
    return "\n".join([table, *(f"\nNote: {note}." for note in notes)])

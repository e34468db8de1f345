"""Synthetic surgical video with exact labels, reproducible from a seed.

For tests, benchmarks and first experiments without real data. It resembles endoscopy
but contains no patient data. The type of an instrument is visible only in its claspers,
which are sometimes hidden, so a network needs memory.

The same seed gives the same bytes on the same type of machine with the same versions of
NumPy and Pillow. Otherwise, single values may differ by 1 (of 255).
"""

from data_pipelines.synthetic.endovis17 import (
    ENDOVIS17_FOLDERS,
    tools_of_endovis17,
    write_endovis17,
)
from data_pipelines.synthetic.endovis18 import (
    ENDOVIS18_LABELS,
    ENDOVIS18_SEQUENCES,
    endovis18_ids,
    tools_of_endovis18,
    write_endovis18,
)
from data_pipelines.synthetic.instruments import JAWS, SHAFT, WRIST, Tool
from data_pipelines.synthetic.render import (
    Frame,
    Scene,
    endless,
    make_scene,
    render_frame,
)
from data_pipelines.synthetic.sprites import TYPES

__all__ = [
    "ENDOVIS17_FOLDERS",
    "ENDOVIS18_LABELS",
    "ENDOVIS18_SEQUENCES",
    "JAWS",
    "SHAFT",
    "TYPES",
    "WRIST",
    "Frame",
    "Scene",
    "Tool",
    "endless",
    "endovis18_ids",
    "make_scene",
    "render_frame",
    "tools_of_endovis17",
    "tools_of_endovis18",
    "write_endovis17",
    "write_endovis18",
]

"""Synthetic surgical video with exact labels, reproducible from a seed.

Made for tests, benchmarks and trying things out before the real data is at hand; it
looks like endoscopy but says nothing about patients. An instrument's type shows in its
claspers alone, which are now and then hidden, so a network has something to remember.

The same seed gives the same bytes on one kind of machine with the same versions of
NumPy and Pillow; elsewhere single values may differ by one step of 255.
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

"""Dense optical flow with OpenCV's DIS method. Needs the extra "flow"."""

from typing import Any

import numpy as np

from data_pipelines.io.environment import install_command
from data_pipelines.io.images import DataError


def dense_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Computes optical flow between two frames (Kroeger et al., ECCV 2016).

    Args:
        before: uint8 RGB [H, W, 3].
        after: uint8 RGB [H, W, 3].

    Returns:
        float32 [H, W, 2], (x, y) in pixels: `before[r, c]` is at
        `after[r + y, c + x]`.

    Raises:
        DataError: OpenCV is not installed.
    """
    cv2 = require_opencv()
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return flow.calc(*gray, None)


def require_opencv() -> Any:
    """Returns the module `cv2`.

    Raises:
        DataError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise DataError(
            [f"optical flow needs OpenCV: {install_command('flow')}"]
        ) from None
    return cv2

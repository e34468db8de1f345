"""Motion of camera, instrument joints, smoke and focus as functions of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipelines.synthetic.fields import (
    Episodes,
    Track,
    generator,
    make_episodes,
    make_track,
)


@dataclass(frozen=True)
class Arm:
    """Motion of one instrument, in frame heights from the frame's center.

    Attributes:
        port: point outside the view that the shaft passes through.
        home: center of the motion of the shaft's end.
        diameter: width of the shaft at its end.
        clearance: height of the shaft's end above the tissue.
        reach: motion of the shaft's end.
        wrist: angles of the wrist.
        grip: opening of the claspers.
        away: when the instrument leaves the view.
        buried: when the claspers dip into the tissue.
    """

    port: tuple[float, float]
    home: tuple[float, float]
    diameter: float
    clearance: float
    reach: Track
    wrist: Track
    grip: Track
    away: Episodes
    buried: Episodes


@dataclass(frozen=True)
class Pose:
    """One instrument at one time. Angles in radians, positions in frame heights.

    Attributes:
        end: distal end (x, y) of the shaft.
        axis: direction of the shaft.
        bends: angles of wrist and claspers relative to the preceding part.
        foreshortening: scale of wrist and claspers along their axis.
        opening: half the angle between the claspers.
        diameter: width of the shaft at its end.
        clearance: height of the shaft's end above the tissue.
        dive: descent per length toward the claspers.
    """

    end: NDArray[np.float64]
    axis: float
    bends: tuple[float, float]
    foreshortening: float
    opening: float
    diameter: float
    clearance: float
    dive: float


SIDES = ("left", "right", "bottom", "top")


def make_arm(
    seed: int, sequence: int, index: int, side: str, aspect: float, crowd: int
) -> Arm:
    """Returns the arm of instrument `index` of `crowd`, which enters from `side`."""
    rng = generator(seed, sequence, 10 + index)
    along = rng.uniform(-0.05, 0.5)
    half = aspect / 2
    port = {
        "left": (-half - 0.45, along),
        "right": (half + 0.45, along),
        "bottom": (rng.uniform(-0.5, 0.5) * half, 1.0),
        "top": (rng.uniform(-0.6, 0.6) * half, -1.0),
    }[side]
    lean = {"left": -0.3, "right": 0.3}.get(side, rng.uniform(-0.1, 0.1))
    rise = {"bottom": 0.2, "top": -0.22}.get(side, rng.uniform(-0.16, 0.14))
    # With more than two instruments, each one leaves the view more often.
    share = min(0.6, 0.16 + 0.14 * max(0, crowd - 2))
    return Arm(
        port=port,
        home=(lean, rise),
        diameter=float(rng.uniform(0.14, 0.185)),
        clearance=float(rng.uniform(0.13, 0.16) + 0.015 * index),
        reach=make_track(rng, 4, 1.7),
        wrist=make_track(rng, 3, 2.6),
        grip=make_track(rng, 1, 0.9),
        away=make_episodes(rng, rng.uniform(17.0, 24.0), share, 1.2),
        buried=make_episodes(rng, rng.uniform(9.0, 13.0), 0.2, 0.9),
    )


def pose(arm: Arm, seconds: float) -> Pose:
    """Returns the pose of an arm at a time."""
    x, y, slow_x, slow_y = arm.reach.at(seconds)
    away, buried = arm.away.at(seconds), arm.buried.at(seconds)
    target = np.array(
        [arm.home[0] + 0.11 * x + 0.13 * slow_x, arm.home[1] + 0.09 * y + 0.12 * slow_y]
    )
    port = np.array(arm.port)
    # Far enough that the claspers leave the view as well.
    out = port + 0.45 * (port - target)
    end = target + away * (out - target)
    axis = math.atan2(*(target - port)[::-1])
    yaw, pitch, turn = arm.wrist.at(seconds)
    (grip,) = arm.grip.at(seconds)
    return Pose(
        end=end,
        axis=axis,
        bends=(0.75 * yaw, 0.55 * turn),
        foreshortening=0.88 + 0.12 * math.cos(1.4 * pitch),
        opening=0.02 + 0.42 * max(0.0, 0.45 + grip),
        diameter=arm.diameter * (1 + 0.08 * slow_y),
        clearance=arm.clearance - 0.11 * buried,
        dive=0.16 + 0.6 * buried,
    )


@dataclass(frozen=True)
class Camera:
    """Motion, focus, smoke and light of the endoscope over time."""

    drift: Track
    sway: Track
    tissue: Track
    jerk: Episodes
    defocus: Episodes
    smoke: Episodes
    wind: Track
    light: tuple[float, float]
    breath: float


def make_camera(seed: int, sequence: int) -> Camera:
    """Draws the camera of a sequence."""
    rng = generator(seed, sequence, 5)
    return Camera(
        drift=make_track(rng, 4, 9.0),
        sway=make_track(rng, 2, 1.3),
        tissue=make_track(rng, 32, 2.2),
        jerk=make_episodes(rng, rng.uniform(11.0, 16.0), 0.04, 0.5),
        defocus=make_episodes(rng, rng.uniform(19.0, 27.0), 0.1, 1.0),
        smoke=make_episodes(rng, rng.uniform(24.0, 34.0), 0.15, 3.0),
        wind=make_track(rng, 4, 5.0),
        light=(float(rng.uniform(-0.22, 0.22)), float(rng.uniform(-0.3, -0.05))),
        breath=float(rng.uniform(3.2, 4.5)),
    )


@dataclass(frozen=True)
class View:
    """The camera at one time: `shift` in frame heights, `turn` in radians, `zoom`."""

    shift: NDArray[np.float64]
    turn: float
    zoom: float
    bulge: NDArray[np.float64]
    """Displacement [4, 4, 2] of the tissue on a coarse grid, frame heights."""


def view(camera: Camera, seconds: float) -> View:
    """Returns the view of the camera at a time."""
    x, y, turn, zoom = camera.drift.at(seconds)
    sway = camera.sway.at(seconds)
    breath = math.sin(2 * math.pi * seconds / camera.breath)
    bulge = 0.012 * camera.tissue.at(seconds).reshape(4, 4, 2)
    bulge[1:3, 1:3, 1] += 0.008 * breath
    return View(
        shift=np.array([0.15 * x, 0.15 * y]) + 0.012 * sway,
        turn=0.11 * turn,
        zoom=1.0 + 0.08 * zoom,
        bulge=bulge,
    )

import itertools

import numpy as np
import pytest
from PIL import Image

from dmnet_jax.video.overlay import (
    PALETTE,
    contact_sheet,
    legend,
    overlay,
    save_indexed_png,
    side_by_side,
)

NAMES = ("background", "shaft", "wrist", "jaws")


def make_frame(size=(40, 60)):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    label = np.zeros(size, np.uint8)
    label[10:30, 5:25], label[12:28, 25:40], label[:4, 50:] = 1, 2, 255
    return image, label


@pytest.mark.parametrize("outline", [True, False])
def test_overlay_paints_only_regions(outline):
    image, label = make_frame()
    before = image.copy()
    painted = overlay(image, label, alpha=0.3, outline=outline)
    assert painted.dtype == np.uint8 and painted.shape == image.shape
    np.testing.assert_array_equal(image, before)
    untouched = (label == 0) | (label == 255)
    np.testing.assert_array_equal(painted[untouched], image[untouched])
    for place in np.ndindex(label.shape):
        if untouched[place]:
            continue
        y, x = place
        around = label[max(y - 1, 0) : y + 2, x], label[y, max(x - 1, 0) : x + 2]
        rim = outline and any((part != label[place]).any() for part in around)
        color = np.array(PALETTE[label[place]], float)
        expected = color if rim else np.rint(0.7 * image[place] + 0.3 * color)
        np.testing.assert_array_equal(painted[place], expected)


def test_overlay_extremes():
    image, label = make_frame()
    bare = overlay(image, label, alpha=0, outline=False)
    np.testing.assert_array_equal(bare, image)
    opaque = overlay(image, label, alpha=1)
    assert (opaque[label == 2] == PALETTE[2]).all()
    large, regions = (np.repeat(np.repeat(a, 24, 0), 24, 1) for a in (image, label))
    outlined = overlay(large, regions, alpha=0)
    changed = (outlined != large).any(-1)
    # Two pixels at 960 lines: the outline stays visible when the image is reduced.
    assert changed[400, 121] and not changed[400, 124] and not changed[400, 119]


def test_overlay_mistakes_are_reported():
    image, label = make_frame()
    with pytest.raises(ValueError, match="must be uint8"):
        overlay(image[..., 0], label)
    with pytest.raises(ValueError, match="nearest"):
        overlay(image, label[::2, ::2])
    with pytest.raises(ValueError, match="label is 2 at row 12, column 25"):
        overlay(image, label, PALETTE[:2])
    with pytest.raises(ValueError, match="alpha"):
        overlay(image, label, alpha=1.5)
    with pytest.raises(ValueError, match="13 classes but 12 colors"):
        legend(["class"] * 13)


def test_palette_is_distinguishable_without_hue():
    # Seven instrument types as seen with protanopia and deuteranopia (Viénot et al.,
    # 1999: linear RGB with red and green mixed to one channel).
    linear = (np.array(PALETTE[:8], float) / 255) ** 2.2
    views = {
        "protan": np.array([[0.11, 0.89, 0], [0.11, 0.89, 0], [0.004, -0.004, 1]]),
        "deutan": np.array([[0.29, 0.71, 0], [0.29, 0.71, 0], [-0.021, 0.021, 1]]),
    }
    for view in views.values():
        simulated = np.clip(linear @ view.T, 0, 1) ** (1 / 2.2)
        for one, other in itertools.combinations(simulated, 2):
            assert np.abs(one - other).max() > 0.08
    assert len(set(PALETTE)) == len(PALETTE) == 12


def test_legend_shows_every_class_and_wraps():
    wide = legend(NAMES, width=600)
    narrow = legend(NAMES, width=110)
    assert wide.width == 600 and narrow.width == 110
    assert narrow.height > 2 * wide.height
    for picture in (wide, narrow):
        colors = {color for _, color in picture.getcolors(1 << 20) or ()}
        assert colors >= set(PALETTE[1:4]) and PALETTE[4] not in colors


def test_panels_show_frame_prediction_and_ground_truth():
    image, label = make_frame((120, 160))
    label[40:100, 60:150] = 3
    prediction = np.where(label == 255, 0, np.roll(label, 3, axis=1))
    sheet = np.asarray(side_by_side(image, prediction, label, names=NAMES))
    corners = np.lib.stride_tricks.sliding_window_view(sheet[:, :160], (120, 160, 3))
    top = int((corners[:, 0, 0] == image).all((1, 2, 3)).argmax())
    assert top > 0, "the title is above the frame"
    assert (sheet[top : top + 120, :160] == image).all()
    for x, displayed in ((168, prediction), (336, label)):
        panel = sheet[top : top + 120, x : x + 160]
        same = (panel == overlay(image, displayed)).all(-1)
        assert same[(displayed == 0) | (displayed == 255)].mean() > 0.98
        # The rest are the class numbers drawn on the regions.
        assert 0 < (~same).sum() < 600
    alone = side_by_side(image, prediction, None, names=NAMES)
    assert alone.width == 2 * 160 + 8


def test_contact_sheet_shows_every_image_uncropped():
    rng = np.random.default_rng(1)
    sizes = [[(4, 6), (8, 5)], [(3, 9)]]
    rows = [[rng.integers(0, 200, (*s, 3), np.uint8) for s in row] for row in sizes]
    sheet = np.asarray(
        contact_sheet([[rows[0][0], Image.fromarray(rows[0][1])], rows[1]])
    )
    assert sheet.shape == (8 + 8 + 3, 9 + 8 + 5, 3)
    np.testing.assert_array_equal(sheet[:4, :6], rows[0][0])
    np.testing.assert_array_equal(sheet[:8, 17:], rows[0][1])
    np.testing.assert_array_equal(sheet[16:, :9], rows[1][0])
    assert (sheet[16:, 9:] == 255).all()
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([[]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_indexed_png_keeps_indices_and_colors(tmp_path, dtype):
    _, label = make_frame()
    path = tmp_path / "label.png"
    save_indexed_png(path, label.astype(dtype), PALETTE[:3])
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), label)
        rgb = np.asarray(image.convert("RGB"))
    assert tuple(rgb[10, 5]) == PALETTE[1] and tuple(rgb[12, 25]) == PALETTE[2]
    assert path.read_bytes()[24] == 8, "8 bits a pixel"
    with pytest.raises(ValueError, match="row 12, column 25"):
        save_indexed_png(path, label, PALETTE[:2])
    with pytest.raises(ValueError, match=r"must be int \[H, W\]"):
        save_indexed_png(path, label / 2)

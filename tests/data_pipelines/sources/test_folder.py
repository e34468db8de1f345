"""Videos in folders: layout, classes, and reports of all errors."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.frames import IGNORE, ClassInfo, DataError
from data_pipelines.sources.folder import check, open_folder

NAMES = ("f1", "f2", "f10")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_video(root, name, masks="masks", frames=NAMES, size=(8, 10), top=2):
    rng = np.random.default_rng(len(name))
    for frame in frames:
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        save(root / name / "frames" / f"{frame}.png", image)
        label = rng.integers(0, top, size, dtype=np.uint8)
        label[0, 0] = top
        save(root / name / masks / f"{frame}.png", label)


@pytest.fixture
def root(tmp_path):
    write_video(tmp_path, "v2")
    write_video(tmp_path, "v10", size=(6, 6))
    return tmp_path


def faults_of(root, **options):
    with pytest.raises(DataError) as error:
        open_folder(root, **options)
    assert str(error.value).splitlines() == list(error.value.faults)
    return error.value.faults


def test_frames_and_masks_are_paired_in_natural_order(root):
    source = open_folder(root)
    assert [video.name for video in source.videos] == ["v2", "v10"]
    assert source.videos[0].frames == NAMES
    for frame, name in enumerate(NAMES):
        image = np.asarray(Image.open(root / "v2/frames" / f"{name}.png"))
        label = np.asarray(Image.open(root / "v2/masks" / f"{name}.png"))
        assert np.array_equal(source.image(0, frame), image)
        assert np.array_equal(source.label(0, frame), label)
    check(source)


def test_jpeg_frames_hidden_and_other_files(root):
    image = np.zeros((8, 10, 3), np.uint8)
    save(root / "v2/frames/f11.JPG", image)
    save(root / "v2/masks/f11.png", image[..., 0])
    (root / "v2/frames/.DS_Store").write_bytes(b"x")
    (root / "v2/frames/Thumbs.db").write_bytes(b"x")
    (root / "v2/masks/._f1.png").write_bytes(b"x")
    (root / "notes").mkdir()
    source = open_folder(root)
    assert source.videos[0].frames == (*NAMES, "f11")
    assert len(source.videos) == 2


def test_classes_are_derived_from_the_masks(root):
    names = [info.name for info in open_folder(root).classes]
    assert names == ["class_0", "class_1", "class_2"]
    save(root / "v10/masks/f2.png", np.full((6, 6), 5, np.uint8))
    colors = [info.color for info in open_folder(root).classes]
    assert len(set(colors)) == 6 and colors[0] == (0, 0, 0)
    save(root / "v10/masks/f2.png", np.full((6, 6), IGNORE, np.uint8))
    assert len(open_folder(root).classes) == 3


def test_classes_come_from_the_argument_or_the_file(root):
    entries = [{"name": "tissue", "color": [1, 2, 3]}, {"name": "a"}, {"name": "b"}]
    (root / "classes.json").write_text(json.dumps(entries))
    classes = open_folder(root).classes
    assert classes[0] == ClassInfo("tissue", (1, 2, 3))
    assert [info.name for info in classes] == ["tissue", "a", "b"]
    names = ("x", ClassInfo("y", (9, 9, 9)), "z")
    classes = open_folder(root, classes=names).classes
    assert [info.name for info in classes] == ["x", "y", "z"]
    assert classes[1].color == (9, 9, 9)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("[{]", "not valid JSON"),
        ('{"name": "a"}', "must list"),
        ('[{"name": "a"}]', "must list"),
        ('[{"name": "a"}, {"label": "b"}]', "class 1: field name"),
        ('[{"name": "a"}, "b"]', "class 1: field name"),
        ('[{"name": "a"}, {"name": "b", "color": [0, 0, 256]}]', "field color"),
        ('[{"name": "a"}, {"name": "b", "color": "red"}]', "field color"),
        ('[{"name": "a"}, {"name": "a"}]', "used twice"),
    ],
)
def test_wrong_class_files_are_explained(root, content, field):
    (root / "classes.json").write_text(content)
    (fault,) = faults_of(root)
    assert "classes.json" in fault and field in fault


def test_too_few_classes_are_an_error_that_names_the_pixel(root):
    source = open_folder(root, classes=("background", "tool"))
    with pytest.raises(DataError, match=r"f1.png: mask value 2 at row 0, column 0"):
        source.label(0, 0)
    with pytest.raises(DataError) as error:
        check(source)
    assert len(error.value.faults) == 6
    assert len(faults_of(root, classes=("background",))) == 1


def test_ignored_values_become_ignore(root):
    source = open_folder(root, ignore=(2,))
    assert len(source.classes) == 2
    label = source.label(0, 0)
    assert label[0, 0] == IGNORE and set(np.unique(label)) == {0, 1, IGNORE}
    assert "0..255" in faults_of(root, ignore=(256,))[0]


def test_other_mask_folders_and_selected_videos(root):
    write_video(root, "v2", masks="parts", top=5)
    source = open_folder(root, masks="parts", videos=("v2",))
    assert len(source.classes) == 6 and len(source.videos) == 1
    faults = faults_of(root, masks="part")
    assert len(faults) == 2
    assert "v2" in faults[0] and "masks, parts" in faults[0]
    (fault,) = faults_of(root, videos=("v2", "v3"))
    assert "v3: no such video; the videos are v2, v10" in fault


def test_all_faults_are_reported_together(root):
    image, label = np.zeros((8, 10, 3), np.uint8), np.zeros((8, 10), np.uint8)
    (root / "v2/masks/f1.png").unlink()
    save(root / "v2/masks/f77.png", label)
    save(root / "v2/frames/f3.png", image[:4])
    save(root / "v2/masks/f3.png", label[:4])
    save(root / "v2/frames/f4.png", image)
    save(root / "v2/masks/f4.png", label[:5])
    (root / "v2/frames/f5.png").write_bytes(b"no image")
    save(root / "v2/masks/f5.png", label)
    save(root / "v2/frames/f2.jpg", image)
    (root / "v3/frames").mkdir(parents=True)
    (root / "v3/masks").mkdir()
    faults = faults_of(root, classes=("a", "b", "c"))
    expected = [
        ("v2/frames/f1.png", "without a mask"),
        ("v2/masks/f77.png", "mask without a frame"),
        ("v2/frames/f3.png", "10x4 (width x height) but f1.png is 10x8"),
        ("v2/masks/f3.png", "10x4 (width x height) but f1.png is 10x8"),
        ("v2/masks/f4.png", "10x5 (width x height) but f1.png is 10x8"),
        ("v2/frames/f5.png", "not a readable"),
        ("v2/frames/f2.png", "same frame as f2.jpg"),
        ("v3/frames", "empty"),
        ("v3/masks", "empty"),
    ]
    assert len(faults) == len(expected)
    for file, text in expected:
        assert sum(file in fault and text in fault for fault in faults) == 1, file


def test_missing_masks_are_accepted_on_request(root):
    (root / "v2/masks/f2.png").unlink()
    for mask in (root / "v10/masks").iterdir():
        mask.unlink()
    (root / "v10/masks").rmdir()
    assert len(faults_of(root)) == 2
    source = open_folder(root, allow_missing=True)
    assert [video.unlabeled for video in source.videos] == [{1}, {0, 1, 2}]
    assert source.label(0, 1) is None and source.label(1, 0) is None
    assert source.label(0, 0) is not None
    check(source)


def test_a_truncated_file_is_found_by_check(root):
    path = root / "v2/frames/f10.png"
    path.write_bytes(path.read_bytes()[:-40])
    source = open_folder(root)
    with pytest.raises(DataError, match="f10.png"):
        check(source)


def test_no_folder_and_no_videos(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_folder(tmp_path / "nowhere")
    (fault,) = faults_of(tmp_path)
    assert "no videos" in fault


def test_the_folder_of_a_video_is_not_the_folder_of_all(root):
    (fault,) = faults_of(root / "v2")
    assert f"it is itself a video, so use {root}" in fault


def test_masks_may_add_an_ending_to_the_frames_names(root):
    for path in (root / "v2/masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    source = open_folder(root)
    assert source.videos[0].frames == NAMES
    assert source.masks[0][2].name == "f10_mask.png"
    (root / "v2/masks/f2_mask.png").rename(root / "v2/masks/f3_mask.png")
    missing, extra = faults_of(root)
    assert "f2.png: frame without a mask" in missing
    assert "f3_mask.png: mask without a frame; add frame f3" in extra


@pytest.mark.parametrize("inside", ["", "frames"])
@pytest.mark.parametrize(("frame", "mask"), [(".jpg", ".png"), (".png", "_seg.bmp")])
def test_masks_may_be_in_the_folder_of_the_frames(root, inside, frame, mask):
    expected = open_folder(root, videos=("v2",))
    folder = root / "v3" / inside
    for number, name in enumerate((*NAMES, "f11")):
        save(folder / f"{name}{frame}", np.zeros((8, 10, 3), np.uint8))
        save(folder / f"{name}{mask}", expected.label(0, number % 3))
    source = open_folder(root)
    assert [video.name for video in source.videos] == ["v2", "v3", "v10"]
    assert source.videos[1].frames == (*NAMES, "f11")
    np.testing.assert_array_equal(source.label(1, 2), expected.label(0, 2))
    (folder / f"f2{mask}").unlink()
    (fault,) = faults_of(root)
    assert f"f2{frame}: frame without a mask" in fault


def test_numbered_images_are_not_frames_and_masks(tmp_path):
    for number in range(1, 22):
        save(tmp_path / "v" / f"f{number}.png", np.zeros((8, 10, 3), np.uint8))
    (tmp_path / "classes.json").write_text('[{"name": "a"}, {"name": "b"}]')
    (fault,) = faults_of(tmp_path)
    assert "no videos" in fault and "annotations" not in fault
    (tmp_path / "instances_default.json").write_text("{}")
    assert "python -m data_pipelines.annotations" in faults_of(tmp_path)[0]


def test_faults_of_the_tree_and_the_pixels_are_reported_together(root):
    classes = [{"name": name} for name in ("background", "a", "b", "c")]
    (root / "classes.json").write_text(json.dumps(classes))
    (root / "v2/masks/f1.png").unlink()
    rgb = np.zeros((8, 10, 3), np.uint8)
    rgb[1, 2] = 1, 2, 3
    save(root / "v2/masks/f2.png", rgb)
    cut = root / "v10/frames/f1.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    report = "\n".join(faults_of(root))
    for part in ("f1.png: frame without", "(1, 2, 3) at row 1", "f1.png: damaged"):
        assert part in report
    assert "classes.json: no mask has a pixel of class 3 (c)" in report
    assert "--data.mask-values" in report.splitlines()[-1]


def test_a_long_report_is_cut_and_counts_the_rest(root):
    write_video(root, "v3", frames=[f"f{k}" for k in range(99)])
    for path in (root / "v3/masks").iterdir():
        path.unlink()
    save(root / "v3/masks/x.png", np.zeros((8, 10), np.uint8))
    with pytest.raises(DataError) as error:
        open_folder(root)
    lines = str(error.value).splitlines()
    assert len(error.value.faults) == 100 and len(lines) == 41
    assert lines[39] == "... and 60 more faults like these"
    assert lines[40] == error.value.faults[-1]

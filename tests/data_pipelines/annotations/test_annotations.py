"""Exports of CVAT, COCO and Labelme are converted completely or refused."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_pipelines.annotations import coco, cvat, shapes
from data_pipelines.annotations.__main__ import main
from data_pipelines.frames import ClassInfo
from data_pipelines.sources.folder import open_folder

SIZE = (24, 40)
CLASSES = (
    ClassInfo("background", (0, 0, 0)),
    ClassInfo("grasper", (10, 128, 0)),
    ClassInfo("hook: left", (250, 50, 83)),
)


def label_of(number):
    label = np.zeros(SIZE, np.uint8)
    label[4:12, 3 + number : 15 + number] = 1
    label[10:20, 18 + number : 30] = 2
    return label


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def picture(number):
    return np.full((*SIZE, 3), 40 * number, np.uint8)


def write_cvat(root, names=("f1", "f2", "f10"), **changes):
    """Writes an export in CVAT's layout, with the background among the classes."""
    colors = np.array([info.color for info in CLASSES], np.uint8)
    for number, name in enumerate(names):
        save(root / "JPEGImages" / f"{name}.png", picture(number))
        save(root / "SegmentationClass" / f"{name}.png", colors[label_of(number)])
        save(root / "SegmentationObject" / f"{name}.png", colors[label_of(number)])
    text = "# label:color_rgb:parts:actions\ngrasper:10,128,0::\n"
    text += "background:0,0,0::\nhook:250,50,83::\n"
    (root / "labelmap.txt").write_text(changes.get("labelmap", text))
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("\n".join(names))
    return root


def convert(tmp_path, *arguments):
    assert main(["--out", f"{tmp_path}/out", *map(str, arguments)]) == 0
    return open_folder(tmp_path / "out")


def refused(tmp_path, capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["--out", f"{tmp_path}/out", *map(str, arguments)])
    assert stop.value.code == 2
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))
    return capsys.readouterr().err


def test_a_cvat_export_is_converted(tmp_path, capsys):
    root = write_cvat(tmp_path / "task")
    source = convert(tmp_path, "--raw", root)
    assert [info.name for info in source.classes] == ["background", "grasper", "hook"]
    assert source.classes[1].color == (10, 128, 0)
    assert source.videos[0].name == "task"
    assert source.videos[0].frames == ("f1", "f2", "f10")
    for number in range(3):
        np.testing.assert_array_equal(source.label(0, number), label_of(number))
        np.testing.assert_array_equal(source.image(0, number), picture(number))
    assert "class 2 (hook): in 3 masks" in capsys.readouterr().out


def test_several_exports_become_several_videos(tmp_path):
    first = write_cvat(tmp_path / "a", ("one/f1", "two/f1"))
    other = write_cvat(
        tmp_path / "b", ("f7",), labelmap="hook:250,50,83::\ngrasper:10,128,0::\n"
    )
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for path in other.rglob("*"):
            archive.write(path, path.relative_to(other))
    shutil.rmtree(other)
    source = convert(tmp_path, "--raw", first, tmp_path / "b.zip")
    assert [video.name for video in source.videos] == ["a_one", "a_two", "b"]
    # Equal names are the same class, regardless of the order in the labelmap.
    np.testing.assert_array_equal(source.label(2, 0), label_of(0))


def test_all_errors_in_a_cvat_export_are_reported(tmp_path, capsys):
    root = write_cvat(tmp_path / "task", labelmap="grasper:10,128,0::\nhook:red::\n")
    (root / "JPEGImages/f2.png").unlink()
    report = refused(tmp_path, capsys, "--raw", root)
    assert "labelmap.txt: line 2: 'hook:red::' is not NAME:R,G,B::" in report
    assert "f2.png: mask without an image" in report
    (root / "labelmap.txt").write_text("grasper:10,128,0::\n")
    save(root / "JPEGImages/f2.png", picture(0)[:9])
    report = refused(tmp_path, capsys, "--raw", root)
    for name in ("f1", "f10"):
        assert f"{name}.png: color (250, 50, 83) at row 10, column" in report
    assert "is not a color of labelmap.txt" in report
    shutil.rmtree(root / "JPEGImages")
    assert "--images" in refused(tmp_path, capsys, "--raw", root)


def test_images_without_annotation_need_a_decision(tmp_path, capsys):
    root = write_cvat(tmp_path / "task")
    (root / "SegmentationClass/f2.png").unlink()
    report = refused(tmp_path, capsys, "--raw", root)
    assert "1 of 3 images have no annotation" in report and "f2.png" in report
    source = convert(tmp_path, "--raw", root, "--empty", "background")
    assert not source.label(0, 1).any()
    shutil.rmtree(tmp_path / "out")
    main(["--raw", str(root), "--out", f"{tmp_path}/out", "--empty", "unlabeled"])
    source = open_folder(tmp_path / "out", allow_missing=True)
    assert source.videos[0].unlabeled == {1}


def test_the_output_of_the_cvat_writer_is_read_back(tmp_path):
    classes = (*CLASSES[:2], ClassInfo("hook", (250, 50, 83)))
    (tmp_path / "written").mkdir()
    writer = cvat.Writer(tmp_path / "written", classes)
    for number in range(3):
        writer.add(f"f{number}", label_of(number))
        save(tmp_path / "pictures" / f"f{number}.png", picture(number))
    writer.close()
    source = convert(
        tmp_path, "--raw", tmp_path / "written", "--images", tmp_path / "pictures"
    )
    for number in range(3):
        np.testing.assert_array_equal(source.label(0, number), label_of(number))
    with pytest.raises(ValueError, match="hook: left"):
        cvat.Writer(tmp_path, CLASSES)


def coco_body(shapes, names=("images/v1/f1.png", "images/v1/f2.png")):
    return {
        "categories": [{"id": 7, "name": "hook"}, {"id": 3, "name": "grasper"}],
        "images": [
            {"id": k, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for k, name in enumerate(names)
        ],
        "annotations": [
            {"id": k, "image_id": 0, "category_id": 7, **shape}
            for k, shape in enumerate(shapes)
        ],
    }


def write_coco(root, body):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    file = root / "annotations" / "instances_default.json"
    file.write_text(json.dumps(body))
    for image in body["images"]:
        save(root / image["file_name"], picture(1))
    return file


def test_coco_polygons_and_both_kinds_of_run_lengths_are_drawn(tmp_path):
    mask = pytest.importorskip("pycocotools.mask", reason="needs the extra coco")
    runs = mask.encode(np.asfortranarray(label_of(0) == 2))["counts"].decode()
    column = (label_of(0) == 1).ravel(order="F")
    ends = np.flatnonzero(np.diff(np.r_[0, column, 0]))
    plain = np.diff(np.r_[0, ends, column.size]).tolist()
    polygon = [[5, 2, 15, 2, 15, 9, 5, 9], [20.5, 12.5, 30, 12, 25, 20]]
    body = coco_body(
        [
            {"segmentation": {"size": [*SIZE], "counts": plain}, "category_id": 3},
            {"segmentation": {"size": [*SIZE], "counts": runs}},
            {"segmentation": polygon, "image_id": 1},
        ]
    )
    write_coco(tmp_path / "task", body)
    source = convert(tmp_path, "--raw", tmp_path / "task")
    assert [info.name for info in source.classes] == ["background", "hook", "grasper"]
    assert source.videos[0].name == "v1"
    swapped = np.array([0, 2, 1])[label_of(0)]
    np.testing.assert_array_equal(source.label(0, 0), swapped)
    # Pillow includes the border of a polygon, COCO's tools do not.
    drawn = Image.new("L", SIZE[::-1])
    for points in polygon:
        ImageDraw.Draw(drawn).polygon(points, fill=1)
    label, expected = source.label(0, 1), np.asarray(drawn)
    assert set(np.unique(label)) == {0, 1} and not (label > expected).any()
    assert (label != expected).sum() < 40 < label.sum()


def test_an_image_may_be_named_by_its_path_on_another_machine(tmp_path, capsys):
    pytest.importorskip("pycocotools", reason="needs the extra coco")
    square = {"segmentation": [[2, 2, 20, 2, 20, 20, 2, 20]]}
    body = coco_body([square], ("v1/f1.png",))
    write_coco(tmp_path / "task", body)
    for name in ("/data/upload/7/f1.png", "C:\\annotated\\f1.png"):
        body["images"][0]["file_name"] = name
        file = tmp_path / "task/annotations/instances_default.json"
        file.write_text(json.dumps(body))
        source = convert(tmp_path, "--raw", tmp_path / "task")
        assert source.videos[0].name == "task" and source.label(0, 0).any()
        shutil.rmtree(tmp_path / "out")
    save(tmp_path / "task/v2/f1.png", picture(2))
    report = refused(tmp_path, capsys, "--raw", tmp_path / "task")
    assert "2 such images" in report


def test_the_last_of_overlapping_annotations_wins(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the extra coco")
    square = [[2, 2, 20, 2, 20, 20, 2, 20]]
    shapes = [{"segmentation": square, "category_id": c} for c in (3, 7)]
    write_coco(tmp_path / "task", coco_body(shapes, ("f1.png",)))
    source = convert(tmp_path, "--raw", tmp_path / "task")
    assert set(np.unique(source.label(0, 0))) == {0, 1}


def test_every_error_in_a_coco_file_is_one_line(tmp_path, capsys):
    pytest.importorskip("pycocotools", reason="needs the extra coco")
    body = coco_body([{"image_id": 9}, {"category_id": 9}])
    file = write_coco(tmp_path / "task", body)
    (tmp_path / "task/images/v1/f2.png").unlink()
    report = refused(tmp_path, capsys, "--raw", file)
    assert f"{file}: annotation 0: image_id 9 is not an image" in report
    assert "annotation 1: category_id 9 is not a category" in report
    assert "image 1: file_name 'images/v1/f2.png': no such image" in report
    rle = {"size": [*SIZE]}
    faults = {
        "neither polygons nor a mask": {"bbox": [1, 2, 3, 4]},
        "a polygon must be": {"segmentation": [[1, 2, 3, 4]]},
        "far outside": {"segmentation": [[1, 2, 3, 4, 1e30, 6]]},
        "is not the image's": {"segmentation": {"size": [1, 1], "counts": [1]}},
        "counts are 5 pixels": {"segmentation": rle | {"counts": [2, 3]}},
        "counts are not run": {"segmentation": rle | {"counts": [-2, 962]}},
        "counts end too early": {"segmentation": rle | {"counts": "P"}},
        "counts are not run lengths": {"segmentation": rle | {"counts": "0~"}},
    }
    write_coco(tmp_path / "task", coco_body(list(faults.values())))
    report = refused(tmp_path, capsys, "--raw", file, "--empty", "background")
    assert len(report.splitlines()) == len(faults)
    for number, text in enumerate(faults):
        assert f"annotation {number}: segmentation: " in report and text in report


def test_classes_may_be_set_and_unknown_names_are_refused(tmp_path, capsys):
    root, file = write_cvat(tmp_path / "task"), tmp_path / "classes.json"
    names = ["background", "hook", "grasper"]
    file.write_text(json.dumps([{"name": name} for name in names]))
    source = convert(tmp_path, "--raw", root, "--classes", file)
    assert [info.name for info in source.classes] == names
    np.testing.assert_array_equal(source.label(0, 0), np.array([0, 2, 1])[label_of(0)])
    shutil.rmtree(tmp_path / "out")
    file.write_text(json.dumps([{"name": name} for name in names[:2]]))
    report = refused(tmp_path, capsys, "--raw", root, "--classes", file)
    assert "task: class 'grasper' is not one of background, hook" in report


def test_the_output_of_the_coco_writer_is_read_back(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the extra coco")
    (tmp_path / "written").mkdir()
    writer = coco.Writer(tmp_path / "written", CLASSES)
    labels = [label_of(0), label_of(3), np.zeros(SIZE, np.uint8)]
    for number, label in enumerate(labels):
        writer.add(f"f{number}.png", label)
        save(tmp_path / "pictures" / f"f{number}.png", picture(number))
    writer.close()
    options = ("--images", tmp_path / "pictures", "--empty", "background")
    source = convert(tmp_path, "--raw", tmp_path / "written", *options)
    assert [info.name for info in source.classes] == [info.name for info in CLASSES]
    for number, label in enumerate(labels):
        np.testing.assert_array_equal(source.label(0, number), label)


def test_a_run_length_text_is_decoded_as_coco_does(tmp_path):
    mask = pytest.importorskip("pycocotools.mask", reason="needs the extra coco")
    rng = np.random.default_rng(0)
    for size in ((1, 1), (3, 50), (300, 200)):
        for share in (0.0, 0.1, 0.5, 1.0):
            expected = rng.random(size) < share
            counts = mask.encode(np.asfortranarray(expected.astype(np.uint8)))["counts"]
            shape = {"size": list(size), "counts": counts.decode()}
            np.testing.assert_array_equal(shapes.draw(shape, size), expected)


def write_labelme(root, **changes):
    """Writes two images for each of two videos, with paths from Windows."""
    square = {"shape_type": "polygon", "points": [[4, 3], [12, 3], [12, 9.5], [4, 9]]}
    box = {"shape_type": "rectangle", "points": [[20, 10], [30, 20]]}
    for video in ("v1", "v2"):
        for name in ("f1", "f2"):
            shapes = [square | {"label": "hook"}, box | {"label": "grasper"}]
            body = {
                "imagePath": f"..\\{video}\\{name}.png",
                "imageData": None,
                "imageHeight": SIZE[0],
                "imageWidth": SIZE[1],
                "shapes": shapes if name == "f1" else [],
            }
            save(root / video / f"{name}.png", picture(1))
            text = json.dumps(body | (changes if name == "f1" else {}))
            (root / video / f"{name}.json").write_text(text)
    return root


def test_labelme_polygons_and_rectangles_are_drawn(tmp_path):
    pytest.importorskip("pycocotools", reason="needs the extra coco")
    source = convert(tmp_path, "--raw", write_labelme(tmp_path / "marked"))
    assert [info.name for info in source.classes] == ["background", "hook", "grasper"]
    assert [video.name for video in source.videos] == ["v1", "v2"]
    label = source.label(1, 0)
    assert (label[4:9, 5:12] == 1).all() and (label[10:20, 20:30] == 2).all()
    assert (label == 1).sum() < 70 and (label == 2).sum() == 100
    # A file without shapes is labeled as background.
    assert source.label(0, 1) is not None and not source.label(0, 1).any()


def test_all_errors_in_labelme_files_are_reported(tmp_path, capsys):
    pytest.importorskip("pycocotools", reason="needs the extra coco")
    line = {"label": "hook", "shape_type": "line", "points": [[1, 2], [3, 4]]}
    short = {"label": "hook", "points": [[1, 2], [3, 4]]}
    root = write_labelme(tmp_path / "marked", shapes=[line, short])
    report = refused(tmp_path, capsys, "--raw", root)
    for video in ("v1", "v2"):
        assert f"{video}/f1.json: shape 0 (hook): is a line; only" in report
        assert f"{video}/f1.json: shape 1 (hook): segmentation: a polygon" in report
    (root / "v1/f2.png").unlink()
    (root / "v2/f2.json").write_text('{"shapes": 1}')
    report = refused(tmp_path, capsys, "--raw", root)
    assert "v1/f2.json: imagePath: no image v1/f2.png" in report
    assert "v2/f2.json: imagePath, imageHeight or imageWidth is missing" in report

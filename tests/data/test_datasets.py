"""The readers of data sets, on tiny files in the official formats."""

from __future__ import annotations

import gzip
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from redepth import io
from redepth.data import datasets
from redepth.data.datasets import REGISTRY, Sample
from redepth.data.datasets import co3d as co3d_module
from redepth.data.datasets import eth3d as eth3d_module
from redepth.data.datasets import middlebury as middlebury_module
from redepth.data.datasets import sintel as sintel_module
from redepth.data.datasets.base import require_some, unknown_name
from redepth.data.datasets.middlebury import Calibration, read_calibration
from redepth.data.datasets.synthetic import UNSHIFTED
from redepth.errors import ConfigError, InputError, MissingDependencyError
from redepth.ops.geometry import normals_from_depth
from redepth.protocols import PROTOCOLS, load_protocol, measure, prepare, read_names
from tests.support.image_files import png_bytes

HEIGHT, WIDTH = 18, 24
NEEDS_ROOT = {
    "kitti",
    "nyuv2",
    "eth3d",
    "diode",
    "middlebury-2014",
    "middlebury-2021",
    "sintel",
    "co3d",
    "folder",
}


def pixels(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def numbers(seed: int = 0, shape: tuple[int, ...] = (HEIGHT, WIDTH)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(1, 60, shape).astype(np.float32)


def photo(path: Path, seed: int = 0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A JPEG so small is not what was saved: its readers are compared with what Pillow decodes.
    Image.fromarray(pixels(seed)).save(path, **options)
    return path


def grey16(path: Path, values: NDArray[np.uint16]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, format="PNG")
    return path


def raw(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def pfm(path: Path, values: NDArray[np.float32]) -> Path:
    height, width = values.shape
    return raw(path, f"Pf\n{width} {height}\n-1\n".encode() + values[::-1].astype("<f4").tobytes())


def build(name: str, root: Path, **options: Any) -> Any:
    return REGISTRY.build(name, {"root": root, **options})


def lines(dataset: Any) -> list[str]:
    return [str(missing) for missing in dataset.check()]


# --- what all have in common ----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NEEDS_ROOT - {"folder"}))
def test_an_empty_folder_is_an_error_with_the_source(name: str, tmp_path: Path) -> None:
    dataset = build(name, tmp_path)
    lacking = lines(dataset)
    assert lacking
    for line in lacking:
        assert str(tmp_path) in line
        assert "http" in line
    with pytest.raises(
        InputError, match=re.escape(f"{tmp_path}: no image with ground truth there: {lacking[0]}")
    ):
        dataset.names()


@pytest.mark.parametrize("name", sorted(NEEDS_ROOT))
def test_a_constructor_touches_nothing(name: str) -> None:
    assert build(name, Path("/nowhere/at all")) is not None
    with pytest.raises(ConfigError, match="root: field required"):
        REGISTRY.build(name, {})


@pytest.mark.parametrize("name", ["kitti", "eth3d", "diode", "sintel", "co3d"])
@pytest.mark.parametrize("image", ["one", "a/b/c/d/e", "../../x", "a//b"])
def test_a_name_of_another_kind_is_refused(name: str, image: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=rf"'{re.escape(image)}' is not an image of this data set; names look like"
    ):
        build(name, tmp_path).load(image)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("kitti", "2011_09_26_drive_0002_sync/0000000069"),
        ("eth3d", "courtyard/DSC_0286"),
        ("diode", "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010"),
        ("sintel", "alley_1/frame_0001"),
        ("co3d", "apple/110_13051_23361/frame000001"),
        ("middlebury-2014", "Piano"),
        ("middlebury-2021", "chess3"),
    ],
)
def test_a_missing_file_is_named_with_its_source(name: str, image: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; .*http"):
        build(name, tmp_path).load(image)


def test_depth_is_0_where_it_is_unknown_or_masked() -> None:
    truth = np.array([[2.0, 0.0, -1.0], [np.inf, np.nan, 4.0]], np.float32)
    sample = Sample("a", np.zeros((2, 3, 3), np.float32), truth)
    assert sample.depth().tolist() == [[2.0, 0.0, 0.0], [0.0, 0.0, 4.0]]
    masked = Sample("a", sample.photo, truth, kind="disparity", mask=truth == 4)
    assert masked.depth().tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.25]]
    assert masked.depth().dtype == torch.float64


def test_an_unknown_name_hints_at_the_nearest() -> None:
    assert "did you mean 'piano'" in str(unknown_name("pianno", ["piano", "pipes"]))


# --- kitti ----------------------------------------------------------------------------------------

DRIVE = "2011_09_26_drive_0002_sync"


def kitti_frame(root: Path, frame: str, part: str = "val", drive: str = DRIVE, seed: int = 0) -> NDArray[Any]:
    photo(root / drive[:10] / drive / "image_02" / "data" / f"{frame}.png", seed)
    values = np.random.default_rng(seed).integers(0, 20_000, (HEIGHT, WIDTH)).astype(np.uint16)
    values[0, 0] = 0
    grey16(root / part / drive / "proj_depth" / "groundtruth" / "image_02" / f"{frame}.png", values)
    return values


def test_kitti(tmp_path: Path) -> None:
    other = "2011_10_03_drive_0027_sync"
    values = kitti_frame(tmp_path, "0000000069")
    kitti_frame(tmp_path, "0000000005")
    kitti_frame(tmp_path, "0000000007", "data_depth_annotated/train", other)
    # A photo without depth, such as the first five of a drive, and depth without its photo.
    photo(tmp_path / "2011_09_26" / DRIVE / "image_02" / "data" / "0000000000.png")
    grey16(
        tmp_path / "val" / DRIVE / "proj_depth" / "groundtruth" / "image_02" / "0000000099.png",
        values,
    )
    dataset = build("kitti", tmp_path)
    assert dataset.check() == []
    names = [f"{DRIVE}/0000000005", f"{DRIVE}/0000000069", f"{other}/0000000007"]
    assert dataset.names() == names
    sample = dataset.load(f"{DRIVE}/0000000069")
    np.testing.assert_array_equal(sample.truth, values / np.float32(256))
    assert sample.truth.dtype == np.float32
    assert (sample.kind, sample.unit, sample.mask) == ("depth", "m", None)
    np.testing.assert_array_equal(sample.pixels(), pixels() / np.float32(255))
    assert dataset.load(names[2]).truth.shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "JPG", "JPEG"])
def test_kitti_photos_may_be_jpeg(ending: str, tmp_path: Path) -> None:
    values = kitti_frame(tmp_path, "0000000069")
    folder = tmp_path / "2011_09_26" / DRIVE / "image_02" / "data"
    (folder / "0000000069.png").unlink()
    photo(tmp_path / "photo.jpg")
    (tmp_path / "photo.jpg").rename(folder / f"0000000069.{ending}")
    dataset = build("kitti", tmp_path)
    assert dataset.names() == [f"{DRIVE}/0000000069"]
    sample = dataset.load(f"{DRIVE}/0000000069")
    assert sample.photo == folder / f"0000000069.{ending}"
    np.testing.assert_array_equal(sample.truth, values / np.float32(256))


def test_kitti_photos_may_stand_apart(tmp_path: Path) -> None:
    kitti_frame(tmp_path / "depth", "0000000069")
    (tmp_path / "depth" / "2011_09_26").rename(tmp_path / "2011_09_26")
    assert len(lines(build("kitti", tmp_path / "depth"))) == 1
    dataset = build("kitti", tmp_path / "depth", photos=tmp_path)
    assert dataset.check() == []
    assert dataset.load(dataset.names()[0]).photo.is_relative_to(tmp_path / "2011_09_26")
    right = build("kitti", tmp_path / "depth", photos=tmp_path, camera="image_03")
    with pytest.raises(InputError, match="no image with ground truth"):
        right.names()


CALIBRATION = """calib_time: 09-Jan-2012 13:57:47
P_rect_02: 7.2e+00 0.0 6.0e+00 4.4e+01 0.0 7.3e+00 1.7e+00 2.1e-01 0.0 0.0 1.0 2.7e-03
P_rect_03: 7.2e+00 0.0 6.5e+00 -3.3e+02 0.0 7.3e+00 1.7e+00 2.1e+00 0.0 0.0 1.0 2.7e-03
"""


def test_kitti_has_a_camera_where_the_day_is_calibrated(tmp_path: Path) -> None:
    kitti_frame(tmp_path, "0000000069")
    dataset = build("kitti", tmp_path)
    assert dataset.load(f"{DRIVE}/0000000069").camera is None
    path = tmp_path / "2011_09_26" / "calib_cam_to_cam.txt"
    path.write_text(CALIBRATION)
    camera = dataset.load(f"{DRIVE}/0000000069").camera
    assert camera.intrinsics_in_pixels(HEIGHT, WIDTH, centres="integer") == pytest.approx(
        (7.2, 7.3, 6.0, 1.7)
    )
    for wrong in (
        "",
        "P_rect_02: 1 2 3\n",
        CALIBRATION.replace("7.2e", "much"),
        CALIBRATION.replace("7.2e", "-1e"),
    ):
        path.write_text(wrong)
        with pytest.raises(InputError, match=r"calib_cam_to_cam.txt: no 'P_rect_02:' with the 12 numbers"):
            dataset.load(f"{DRIVE}/0000000069")


def test_kitti_depth_that_an_editor_reduced_is_refused(tmp_path: Path) -> None:
    kitti_frame(tmp_path, "0000000069")
    path = tmp_path / "val" / DRIVE / "proj_depth" / "groundtruth" / "image_02" / "0000000069.png"
    dataset = build("kitti", tmp_path)
    Image.fromarray(pixels()[..., 0]).save(path)
    with pytest.raises(InputError, match=r"0000000069.png: is 8-bit grey, not 16-bit grey"):
        dataset.load(f"{DRIVE}/0000000069")
    path.write_bytes(b"\x89PNG nothing")
    with pytest.raises(InputError, match="not a readable image, or a damaged one"):
        dataset.load(f"{DRIVE}/0000000069")
    grey16(path, np.ones((3, 4), np.uint16))
    with pytest.raises(InputError, match=r"the truth is \(3, 4\) and the photo \(18, 24\)"):
        dataset.load(f"{DRIVE}/0000000069")


# --- eth3d ----------------------------------------------------------------------------------------


def eth3d_photo(root: Path, scene: str, stem: str, **options: Any) -> NDArray[np.float32]:
    photo(root / scene / "images" / "dslr_images" / f"{stem}.JPG", **options)
    values = numbers()
    values[2:5] = np.inf
    raw(root / scene / "ground_truth_depth" / "dslr_images" / f"{stem}.JPG", values.astype("<f4").tobytes())
    return values


def test_eth3d(tmp_path: Path) -> None:
    values = eth3d_photo(tmp_path, "pipes", "DSC_0002")
    eth3d_photo(tmp_path, "pipes", "DSC_0001")
    eth3d_photo(tmp_path, "courtyard", "DSC_0286")
    photo(tmp_path / "pipes" / "images" / "dslr_images" / "DSC_0003.JPG")
    dataset = build("eth3d", tmp_path)
    assert dataset.names() == ["courtyard/DSC_0286", "pipes/DSC_0001", "pipes/DSC_0002"]
    sample = dataset.load("pipes/DSC_0002")
    np.testing.assert_array_equal(sample.truth, values)
    assert not sample.depth()[2:5].any()
    with Image.open(tmp_path / "pipes" / "images" / "dslr_images" / "DSC_0002.JPG") as image:
        np.testing.assert_array_equal(sample.photo, np.asarray(image) / np.float32(255))
    lacking = lines(dataset)
    assert len(lacking) == 13
    assert any(
        "pipes: 2 of 14 photos with depth; pipes_dslr_jpg.7z and pipes_dslr_depth.7z" in x for x in lacking
    )


def test_eth3d_has_454_photos() -> None:
    assert sum(eth3d_module.SCENES.values()) == 454
    assert len(eth3d_module.SCENES) == 13


def test_eth3d_depth_belongs_to_the_stored_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    eth3d_photo(tmp_path, "pipes", "DSC_0001", exif=exif)
    path = tmp_path / "pipes" / "images" / "dslr_images" / "DSC_0001.JPG"
    assert io.load_photo(path).shape == (WIDTH, HEIGHT, 3)
    assert build("eth3d", tmp_path).load("pipes/DSC_0001").pixels().shape == (HEIGHT, WIDTH, 3)


def test_eth3d_depth_of_another_length_is_refused(tmp_path: Path) -> None:
    eth3d_photo(tmp_path, "pipes", "DSC_0001")
    path = tmp_path / "pipes" / "ground_truth_depth" / "dslr_images" / "DSC_0001.JPG"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"1724 bytes are not 24 x 18 floats \(1728 bytes\)"):
        build("eth3d", tmp_path).load("pipes/DSC_0001")
    (tmp_path / "pipes" / "images" / "dslr_images" / "DSC_0001.JPG").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=r"DSC_0001.JPG: not a readable image"):
        build("eth3d", tmp_path).load("pipes/DSC_0001")


def test_no_reader_opens_what_a_photo_must_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    def start(*arguments: object, **options: object) -> None:
        raise AssertionError("Ghostscript is started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    eth3d_photo(tmp_path, "pipes", "DSC_0001")
    path = tmp_path / "pipes" / "images" / "dslr_images" / "DSC_0001.JPG"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 18\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match=r"DSC_0001.JPG: PostScript is not supported"):
        build("eth3d", tmp_path).load("pipes/DSC_0001")
    path.write_bytes(png_bytes(100_000, 100_000))
    with pytest.raises(InputError, match=r"DSC_0001.JPG: 100000 x 100000 is .* --max-pixels"):
        build("eth3d", tmp_path).load("pipes/DSC_0001")


# --- co3d -----------------------------------------------------------------------------------------


def co3d_frame(root: Path, sequence: str, number: int, scale: float = 0.25, **depth: Any) -> dict[str, Any]:
    folder, stem = f"apple/{sequence}", f"frame{number:06}"
    photo(root / folder / "images" / f"{stem}.jpg", number)
    values = numbers(number).astype(np.float16)
    values[0, :3] = (np.inf, np.nan, 0)
    grey16(root / folder / "depths" / f"{stem}.jpg.geometric.png", values.view(np.uint16))
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:9] = True
    (root / folder / "depth_masks").mkdir(exist_ok=True)
    Image.fromarray(mask).save(root / folder / "depth_masks" / f"{stem}.png")
    entry = {
        "path": f"{folder}/depths/{stem}.jpg.geometric.png",
        "scale_adjustment": scale,
        "mask_path": f"{folder}/depth_masks/{stem}.png",
    }
    return {
        "sequence_name": sequence,
        "frame_number": number,
        "image": {"path": f"{folder}/images/{stem}.jpg", "size": [HEIGHT, WIDTH]},
        "depth": {**entry, **depth},
    }


def annotations(root: Path, frames: list[dict[str, Any]], category: str = "apple") -> Path:
    path = root / category / "frame_annotations.jgz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump(frames, file)
    return path


def test_co3d(tmp_path: Path) -> None:
    frames = [co3d_frame(tmp_path, "12_34_56", 1), co3d_frame(tmp_path, "12_34_56", 2, scale=3.0)]
    frames.append(co3d_frame(tmp_path, "99_1_1", 7, mask_path=None))
    without = co3d_frame(tmp_path, "99_1_1", 8) | {"depth": None}
    absent = co3d_frame(tmp_path, "99_1_1", 9)
    (tmp_path / absent["depth"]["path"]).unlink()
    annotations(tmp_path, [*frames, without, absent])
    dataset = build("co3d", tmp_path)
    assert dataset.check() == []
    assert dataset.names() == [
        "apple/12_34_56/frame000001",
        "apple/12_34_56/frame000002",
        "apple/99_1_1/frame000007",
    ]
    sample = dataset.load("apple/12_34_56/frame000002")
    expected = numbers(2).astype(np.float16).astype(np.float32) * np.float32(3.0)
    expected[0, :3] = 0
    np.testing.assert_array_equal(sample.truth, expected)
    assert sample.unit == "relative"
    assert sample.mask[:9].all()
    assert not sample.mask[9:].any()
    known = sample.depth() > 0
    assert int(known.sum()) == 9 * WIDTH - 3
    # The bit patterns taken for integers would be far off.
    with Image.open(tmp_path / "apple/12_34_56/depths/frame000002.jpg.geometric.png") as image:
        assert np.asarray(image).min() >= 0
        assert np.asarray(image).max() > 10_000
    assert dataset.load("apple/99_1_1/frame000007").mask is None
    with pytest.raises(InputError, match="did you mean 'apple/12_34_56/frame000002'"):
        dataset.load("apple/12_34_56/frame000003")


def test_co3d_categories(tmp_path: Path) -> None:
    annotations(tmp_path, [co3d_frame(tmp_path, "12_34_56", 1)])
    annotations(tmp_path, [], "zebra")
    dataset = build("co3d", tmp_path, categories=["apple", "bench"])
    assert dataset.names() == ["apple/12_34_56/frame000001"]
    assert len(lines(dataset)) == 1
    assert str(tmp_path / "bench" / "frame_annotations.jgz") in lines(dataset)[0]


def test_co3d_annotations_that_cannot_be_used_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "apple" / "frame_annotations.jgz"
    path.parent.mkdir()
    path.write_text("[]")
    with pytest.raises(InputError, match=r"frame_annotations.jgz: damaged"):
        build("co3d", tmp_path).names()
    whole = gzip.compress(b"[]" * 1000)
    for content in (b"[{", b"[" * 100_000, b"[1"):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(InputError, match=r"frame_annotations.jgz: (damaged|not CO3D)") as error:
            build("co3d", tmp_path).names()
        assert len(str(error.value)) < 400 + len(str(path))
    for damaged in (whole[:-4], whole[:12] + b"\xff" * 4 + whole[16:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"frame_annotations.jgz: damaged"):
            build("co3d", tmp_path).names()
    frame = co3d_frame(tmp_path, "12_34_56", 1)
    del frame["depth"]["scale_adjustment"]
    annotations(tmp_path, [frame])
    with pytest.raises(InputError, match="scale_adjustment"):
        build("co3d", tmp_path).load("apple/12_34_56/frame000001")
    monkeypatch.setattr(co3d_module, "ANNOTATIONS_LIMIT", 10)
    path.write_bytes(whole)
    with pytest.raises(InputError, match="longer than 10 bytes when unpacked"):
        build("co3d", tmp_path).names()


# --- nyuv2 ----------------------------------------------------------------------------------------


def nyu_mat(root: Path, count: int = 3) -> dict[str, NDArray[Any]]:
    """A .mat as h5py reads it: MATLAB's (480, 640, 3, N) with all axes reversed."""
    h5py = pytest.importorskip("h5py")
    arrays = {
        "images": np.stack([pixels(i) for i in range(count)]),
        "rawDepths": numbers(0, (count, HEIGHT, WIDTH)),
        "depths": numbers(1, (count, HEIGHT, WIDTH)),
    }
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        for name, values in arrays.items():
            file[name] = np.moveaxis(values, (1, 2), (-1, -2))
    return arrays


def test_nyu_mat(tmp_path: Path) -> None:
    arrays = nyu_mat(tmp_path)
    dataset = build("nyuv2", tmp_path)
    assert dataset.check() == []
    assert dataset.names() == ["0001", "0002", "0003"]
    sample = dataset.load("0002")
    np.testing.assert_array_equal(sample.truth, arrays["rawDepths"][1])
    np.testing.assert_array_equal(sample.pixels(), arrays["images"][1] / np.float32(255))
    filled = build("nyuv2", tmp_path, depth="filled").load("0003")
    np.testing.assert_array_equal(filled.truth, arrays["depths"][2])
    for name in ("0000", "0004", "2", "x"):
        with pytest.raises(InputError, match="images, 0001 to 0003"):
            dataset.load(name)


def test_nyu_exports_count_from_1_and_from_0(tmp_path: Path) -> None:
    values = (numbers() * 100).astype(np.uint16)
    photo(tmp_path / "test" / "kitchen_0004" / "rgb_0009.png")
    grey16(tmp_path / "test" / "kitchen_0004" / "depth_0009.png", values)
    photo(tmp_path / "bathroom" / "rgb_00045.jpg")
    grey16(tmp_path / "bathroom" / "sync_depth_00045.png", values)
    photo(tmp_path / "bathroom" / "rgb_00050.jpg")
    dataset = build("nyuv2", tmp_path)
    assert dataset.names() == ["0009", "0046"]
    for name in dataset.names():
        np.testing.assert_array_equal(dataset.load(name).truth, values / np.float32(1000))
    with pytest.raises(InputError, match="'0045' is not an image of this data set; did you mean '0046'"):
        dataset.load("0045")
    assert len(lines(build("nyuv2", tmp_path, depth="filled"))) == 1
    grey16(tmp_path / "test" / "kitchen_0004" / "filled_0009.png", values + 1)
    filled = build("nyuv2", tmp_path, depth="filled")
    assert filled.names() == ["0009"]
    np.testing.assert_array_equal(filled.load("0009").truth, (values + 1) / np.float32(1000))


@pytest.mark.parametrize("above", ["nyu_data/data/nyu2_test", "data/nyu2_test", "nyu2_test", ""])
def test_nyu_of_kaggle(above: str, tmp_path: Path) -> None:
    """Its test images have the numbers of the .mat, counted from 0; those to train on are not read."""
    holed, full = (numbers() * 100).astype(np.uint16), (numbers(1) * 100).astype(np.uint16)
    holed[3, 4] = 0
    for number, values in ((0, holed), (8, full)):
        photo(tmp_path / above / f"{number:05}_colors.png", number)
        grey16(tmp_path / above / f"{number:05}_depth.png", values)
    photo(tmp_path / above / "00013_colors.png")
    photo(tmp_path / "nyu_data" / "data" / "nyu2_train" / "kitchen_0004_out" / "1.jpg")
    raw, filled = (build("nyuv2", tmp_path, depth=depth) for depth in ("raw", "filled"))
    assert raw.check() == []
    assert raw.names() == filled.names() == ["0001", "0009"]
    np.testing.assert_array_equal(raw.load("0001").truth, holed / np.float32(1000))
    np.testing.assert_array_equal(filled.load("0009").truth, full / np.float32(1000))
    np.testing.assert_array_equal(filled.load("0009").pixels(), pixels(8) / np.float32(255))
    with pytest.raises(
        InputError, match=r"00008_depth.png: has depth at every pixel, so it is filled.*nyuv2-filled"
    ):
        raw.load("0009")
    with pytest.raises(InputError, match=r"00000_depth.png: has pixels without depth, so it is raw"):
        filled.load("0001")


def test_the_list_of_kaggle_begins_as_that_of_the_test_images() -> None:
    # The first of its archive are 00000, 00001, 00008, 00013, 00014, 00015, 00016, 00017 and 00020.
    listed = read_names(PROTOCOLS / "splits" / "nyuv2-eigen.txt")
    assert [int(name) - 1 for name in listed[:9]] == [0, 1, 8, 13, 14, 15, 16, 17, 20]


def test_nyu_has_the_camera_of_its_toolbox(tmp_path: Path) -> None:
    nyu_mat(tmp_path)
    camera = build("nyuv2", tmp_path).load("0001").camera
    assert camera.intrinsics_in_pixels(480, 640, centres="integer") == pytest.approx(
        (518.857901, 519.469611, 325.582449, 253.736166)
    )


def test_nyu_mat_that_cannot_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"nyu_depth_v2_labeled.mat: damaged or truncated"):
        build("nyuv2", tmp_path).names()
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((1, 3, 4, 5), np.uint8)
    with pytest.raises(InputError, match="has no depths, rawDepths"):
        build("nyuv2", tmp_path).load("0001")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "redepth\[bench\]"'):
        build("nyuv2", tmp_path).names()


def test_nyu_mat_that_is_damaged_anywhere_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    nyu_mat(tmp_path)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    content = path.read_bytes()
    for length in range(8, len(content) - 1, len(content) // 12):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"labeled.mat: "):
            build("nyuv2", tmp_path).load("0001")
    path.unlink()
    with h5py.File(path, "w") as file:
        for key in ("images", "depths", "rawDepths"):
            file[key] = np.zeros((1, 3, 4, 5), np.uint8)
    with pytest.raises(InputError, match="holds arrays of the shapes"):
        build("nyuv2", tmp_path).names()
    path.unlink()
    with h5py.File(path, "w") as file:
        for key, shape in (("images", (1, 3, 10**5, 10**5)), ("depths", (1, 10**5, 10**5))):
            file.create_dataset(key, shape, np.uint8, chunks=True)
        file["rawDepths"] = file["depths"]
    with pytest.raises(InputError, match="--max-pixels 10000000000"):
        build("nyuv2", tmp_path).load("0001")
    with h5py.File(path, "w") as file:
        file.create_group("images")
        file.create_group("depths")
        file.create_group("rawDepths")
    with pytest.raises(InputError, match="holds arrays of the shapes"):
        build("nyuv2", tmp_path).names()


# --- diode ----------------------------------------------------------------------------------------


def diode_image(root: Path, kind: str, scan: str = "scan_00183", seed: int = 0) -> tuple[str, NDArray[Any]]:
    name = f"{kind}/scene_00019/{scan}/00019_00183_{kind}_000_010"
    base = root / "val" / name
    photo(base.with_name(f"{base.name}.png"), seed)
    values = numbers(seed)
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[4:, :7] = 1
    np.save(base.with_name(f"{base.name}_depth.npy"), values[..., None])
    np.save(base.with_name(f"{base.name}_depth_mask.npy"), mask)
    return name, values


def test_diode(tmp_path: Path) -> None:
    outdoor, _ = diode_image(tmp_path, "outdoor")
    name, values = diode_image(tmp_path, "indoors", seed=1)
    half, _ = diode_image(tmp_path, "indoors", "scan_00184")
    (tmp_path / "val" / f"{half}_depth_mask.npy").unlink()
    dataset = build("diode", tmp_path)
    assert dataset.names() == [name, outdoor]
    sample = dataset.load(name)
    np.testing.assert_array_equal(sample.truth, values)
    assert int(sample.mask.sum()) == 14 * 7
    np.testing.assert_array_equal(sample.depth().numpy() > 0, sample.mask)
    assert [line.partition(" images")[0] for line in lines(dataset)] == [
        f"{tmp_path / 'val' / 'indoors'}: 1 of 325",
        f"{tmp_path / 'val' / 'outdoor'}: 1 of 446",
    ]
    assert build("diode", tmp_path, scenes="outdoor").names() == [outdoor]
    np.save(tmp_path / "val" / f"{name}_depth_mask.npy", np.ones((3, 3), np.float32))
    with pytest.raises(InputError, match=r"the mask is \(3, 3\) and the photo \(18, 24\)"):
        dataset.load(name)


# --- middlebury -----------------------------------------------------------------------------------

CALIB = """cam0=[3979.911 0 1244.772; 0 3979.911 1019.507; 0 0 1]
cam1=[3979.911 0 1369.115; 0 3979.911 1019.507; 0 0 1]
doffs=124.343
baseline=193.001
width=2964
height=1988
ndisp=280
isint=0
vmin=23
vmax=245
dyavg=0
dymax=0
"""


def test_middlebury(tmp_path: Path) -> None:
    folder = tmp_path / "Motorcycle-perfect"
    photo(folder / "im0.png")
    disparity = numbers()
    disparity[0, 0] = np.inf
    pfm(folder / "disp0.pfm", disparity)
    (folder / "calib.txt").write_text(CALIB)
    dataset = build("middlebury-2014", tmp_path)
    assert dataset.names() == ["Motorcycle"]
    sample = dataset.load("Motorcycle")
    expected = 0.193001 * 3979.911 / (disparity.astype(np.float64) + 124.343)
    expected[0, 0] = 0
    np.testing.assert_allclose(sample.truth, expected, rtol=1e-6)
    # Without the offset even the ratio of two depths would be wrong.
    wrong = (1 / disparity[1, 1]) / (1 / disparity[2, 2])
    assert abs(float(sample.truth[1, 1] / sample.truth[2, 2]) / wrong - 1) > 0.1
    fx, _, cx, _ = sample.camera.normalized_intrinsics(HEIGHT, WIDTH)
    assert fx == pytest.approx(3979.911 / WIDTH)
    assert cx == pytest.approx(1245.272 / WIDTH)
    lacking = lines(dataset)
    assert len(lacking) == 22
    assert lacking[0].startswith(f"{tmp_path / 'Adirondack-perfect'}: no im0.png, disp0.pfm, calib.txt; ")
    assert "Adirondack-perfect.zip" in lacking[0]
    with pytest.raises(InputError, match="did you mean 'Motorcycle'"):
        dataset.load("motorcycle")
    with pytest.raises(InputError, match=r"no image with ground truth.*imperfect.zip"):
        build("middlebury-2014", tmp_path, variant="imperfect").names()


def test_middlebury_has_23_scenes_and_24_of_2021() -> None:
    assert len(set(middlebury_module.SCENES)) == 23
    assert len(set(middlebury_module.SCENES_2021)) == 24


@pytest.mark.parametrize("above", ["data", ""])
def test_middlebury_of_2021(above: str, tmp_path: Path) -> None:
    folder = tmp_path / above / "artroom1"
    photo(folder / "im0.png")
    disparity = numbers()
    disparity[2] = np.inf
    pfm(folder / "disp0.pfm", disparity)
    (folder / "calib.txt").write_text(
        "cam0=[1733.74 0 792.27; 0 1733.74 541.89; 0 0 1]\ncam1=[1733.74 0 792.27; 0 1733.74 541.89; 0 0 1]\n"
        "doffs=0\nbaseline=536.62\nwidth=1920\nheight=1080\nndisp=170\nvmin=55\nvmax=142\n"
    )
    dataset = build("middlebury-2021", tmp_path)
    assert dataset.names() == ["artroom1"]
    sample = dataset.load("artroom1")
    known = np.isfinite(disparity)
    np.testing.assert_allclose(sample.truth[known], 0.53662 * 1733.74 / disparity[known], rtol=1e-6)
    assert not sample.truth[2].any()
    assert sample.camera.intrinsics_in_pixels(HEIGHT, WIDTH, centres="integer")[0] == pytest.approx(1733.74)
    lacking = lines(dataset)
    assert len(lacking) == 23
    assert "artroom2: no im0.png, disp0.pfm, calib.txt; all.zip of the 2021" in lacking[0]
    with pytest.raises(InputError, match="did you mean 'artroom1'"):
        dataset.load("Artroom1")


@pytest.mark.parametrize("key", ["cam0", "doffs", "baseline"])
@pytest.mark.parametrize("line", ["", "{key}=much", "{key}=1.2.3"])
def test_a_calibration_without_its_numbers_is_refused(key: str, line: str, tmp_path: Path) -> None:
    text = re.sub(rf"^{key}=.*$", line.format(key=key), CALIB, flags=re.MULTILINE)
    (tmp_path / "calib.txt").write_text(text)
    with pytest.raises(InputError, match=rf"calib.txt: no '{key}=' as Middlebury writes it"):
        read_calibration(tmp_path / "calib.txt")


def test_a_disparity_that_has_no_depth_is_unknown() -> None:
    calibration = Calibration(focal=100.0, center=(1.0, 1.0), doffs=-5.0, baseline=50.0)
    depth = calibration.depth(np.array([[10.0, 5.0, 4.0, np.nan]], np.float32))
    np.testing.assert_allclose(depth, [[1.0, 0.0, 0.0, 0.0]])


def test_motorcycle_is_the_quarter_of_the_benchmark(motorcycle_disparity: Path) -> None:
    dataset = REGISTRY.build("motorcycle", {})
    assert dataset.check() == []
    assert dataset.names() == ["motorcycle"]
    sample = dataset.load("motorcycle")
    disparity = np.load(motorcycle_disparity)["arr_0"]
    known = np.isfinite(disparity)
    np.testing.assert_allclose(sample.truth[known], 192.0298 / (disparity[known] + 31.086), rtol=1e-4)
    assert not sample.truth[~known].any()
    assert sample.pixels().shape == (500, 741, 3)
    assert 2 < sample.truth[known].min() < sample.truth[known].max() < 5.1
    with pytest.raises(InputError, match="'bike' is not an image"):
        dataset.load("bike")


def test_motorcycle_without_scikit_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dataset = REGISTRY.build("motorcycle", {})
    monkeypatch.setattr(middlebury_module, "_skimage_data", lambda: None)
    with pytest.raises(InputError, match=r'scikit-image is not installed; pip install "redepth\[bench\]"'):
        dataset.names()
    monkeypatch.setattr(middlebury_module, "_skimage_data", lambda: tmp_path)
    assert len(lines(dataset)) == 2


# --- sintel ---------------------------------------------------------------------------------------


def dpt(values: NDArray[np.float32], magic: float = 202021.25) -> bytes:
    return struct.pack("<fii", magic, values.shape[1], values.shape[0]) + values.astype("<f4").tobytes()


def test_sintel(tmp_path: Path) -> None:
    training = tmp_path / "training"
    for frame in (2, 1, 3):
        photo(training / "final" / "alley_1" / f"frame_{frame:04}.png", frame)
    for frame in (1, 2):
        raw(training / "depth" / "alley_1" / f"frame_{frame:04}.dpt", dpt(numbers(frame)))
    dataset = build("sintel", tmp_path)
    assert dataset.names() == ["alley_1/frame_0001", "alley_1/frame_0002"]
    sample = dataset.load("alley_1/frame_0002")
    np.testing.assert_array_equal(sample.truth, numbers(2))
    np.testing.assert_array_equal(sample.pixels(), pixels(2) / np.float32(255))
    assert lines(dataset)[0].startswith(f"{training / 'final' / 'alley_1'}: 3 of 50 .png; ")
    assert lines(dataset)[1].startswith(f"{training / 'depth' / 'alley_1'}: 2 of 50 .dpt; ")
    with pytest.raises(InputError, match="no image with ground truth"):
        build("sintel", tmp_path, render="clean").names()


def cam(values: list[float], magic: float = 202021.25) -> bytes:
    return struct.pack("<f9d12d", magic, *values, *range(12))


def test_sintel_has_a_camera_where_its_file_is_there(tmp_path: Path) -> None:
    training = tmp_path / "training"
    photo(training / "final" / "alley_1" / "frame_0001.png")
    raw(training / "depth" / "alley_1" / "frame_0001.dpt", dpt(numbers()))
    dataset = build("sintel", tmp_path)
    assert dataset.load("alley_1/frame_0001").camera is None
    path = training / "camdata_left" / "alley_1" / "frame_0001.cam"
    raw(path, cam([30.0, 0, 11.5, 0, 31.0, 8.5, 0, 0, 1]))
    camera = dataset.load("alley_1/frame_0001").camera
    assert camera.intrinsics_in_pixels(HEIGHT, WIDTH, centres="integer") == pytest.approx((30, 31, 11.5, 8.5))
    for content in (b"PIEH", cam([1.0] * 9)[:-1], cam([1.0] * 9) + b"x", cam([1.0] * 9, magic=1.0)):
        raw(path, content)
        with pytest.raises(InputError, match=r"frame_0001.cam: is no .cam file: 202021.25 and 21 numbers"):
            dataset.load("alley_1/frame_0001")
    raw(path, cam([-30.0, 0, 11.5, 0, 31.0, 8.5, 0, 0, 1]))
    with pytest.raises(InputError, match=r"frame_0001.cam: intrinsics must be four numbers"):
        dataset.load("alley_1/frame_0001")


def test_sintel_has_1064_frames() -> None:
    assert len(sintel_module.SCENES) == 23
    assert sum(sintel_module.SCENES.values()) == 1064


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (dpt(numbers(), 1.0), "does not start with 202021.25"),
        (struct.pack(">fii", 202021.25, 24, 18), "big-endian"),
        (dpt(numbers())[:-1], r"1727 bytes are not 24 x 18 floats \(1728 bytes\)"),
        (struct.pack("<fii", 202021.25, -1, 4), "declares -1 x 4 pixels"),
    ],
)
def test_a_dpt_that_cannot_be_used_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        sintel_module.read_dpt(raw(tmp_path / "a.dpt", content))


# --- folder ---------------------------------------------------------------------------------------


def test_folder_pairs_by_the_wildcards(tmp_path: Path) -> None:
    for name in ("b", "a", "lonely"):
        photo(tmp_path / "rgb" / f"{name}.png")
    for name in ("a", "b", "other"):
        grey16(tmp_path / "d" / f"{name}_depth.png", np.full((HEIGHT, WIDTH), 2500, np.uint16))
    dataset = build("folder", tmp_path, photos="rgb/*.png", truths="d/*_depth.png", scale=0.001, unit="m")
    assert dataset.names() == ["a", "b"]
    sample = dataset.load("a")
    np.testing.assert_allclose(sample.truth, 2.5)
    assert (sample.kind, sample.unit) == ("depth", "m")
    assert lines(dataset) == [
        f"{tmp_path / 'rgb' / 'lonely.png'}: no truth for 'lonely'; expected d/*_depth.png"
    ]
    with pytest.raises(InputError, match="'lonely' is not an image of this data set"):
        dataset.load("lonely")


def test_folder_refuses_ground_truth_of_another_orientation(tmp_path: Path) -> None:
    upright = Image.Exif()
    upright[0x0112] = 6
    photo(tmp_path / "photos" / "a.png", exif=upright)
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "a.npy", numbers())
    with pytest.raises(
        InputError, match="ground truth is 24 x 18 pixels and the photo, as it is shown, 18 x 24"
    ):
        prepare(load_protocol("folder"), build("folder", tmp_path).load("a"))
    np.save(tmp_path / "depth" / "a.npy", numbers().T)
    sample = build("folder", tmp_path).load("a")
    assert sample.pixels().shape[:2] == sample.truth.shape


def test_folder_with_subfolders_masks_and_disparity(tmp_path: Path) -> None:
    for place in ("x", "x/y"):
        photo(tmp_path / place / "rgb_01.png")
        np.save(tmp_path / place / "disp_01.npy", numbers())
        Image.fromarray(pixels()[..., 0] > 99).save(tmp_path / place / "mask_01.png")
    dataset = build(
        "folder",
        tmp_path,
        photos="**/rgb_*.png",
        truths="**/disp_*.npy",
        masks="**/mask_*.png",
        kind="disparity",
        unit="relative",
    )
    assert dataset.check() == []
    assert dataset.names() == ["x/01", "x/y/01"]
    sample = dataset.load("x/y/01")
    assert (sample.kind, sample.unit) == ("disparity", "relative")
    np.testing.assert_array_equal(sample.mask, pixels()[..., 0] > 99)
    np.testing.assert_allclose(sample.depth()[torch.from_numpy(sample.mask)], 1 / numbers()[sample.mask])


def test_folder_patterns_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"truths: 'a.npy' must hold a \* and start at the root"):
        build("folder", tmp_path, truths="a.npy")
    with pytest.raises(ConfigError, match=r"photos: '/a/\*.png' must hold a \* and start at the root"):
        build("folder", tmp_path, photos="/a/*.png")
    with pytest.raises(ConfigError, match="scale"):
        build("folder", tmp_path, scale=0.0)


def test_a_folder_without_pairs_is_an_error_with_the_pattern(tmp_path: Path) -> None:
    dataset = build("folder", tmp_path)
    assert lines(dataset) == [f"{tmp_path}: no photo matches photos/*.png; give the pattern of your photos"]
    photo(tmp_path / "photos" / "a.png")
    with pytest.raises(
        InputError, match=r"no image .* there: .*a.png: no truth for 'a'; expected depth/\*.npy"
    ):
        dataset.names()


def test_folder_refuses_two_files_of_one_name(tmp_path: Path) -> None:
    for place in ("p/x/q", "p/q/x"):
        photo(tmp_path / place / "z.png")
    dataset = build("folder", tmp_path, photos="p/**/q*/**/z.png", truths="*.npy")
    with pytest.raises(InputError, match=r"would both be 'x'; give a narrower pattern"):
        dataset.names()


# --- synthetic ------------------------------------------------------------------------------------


def test_synthetic_scenes_depend_on_their_own_seed_alone() -> None:
    dataset = REGISTRY.build("synthetic", {"count": 3, "size": 32, "seed": 7})
    assert dataset.names() == ["relief-7", "relief-8", "relief-9"]
    assert dataset.check() == []
    sample = dataset.load("relief-8")
    assert sample.pixels().shape == (32, 32, 3)
    assert sample.unit == "relative"
    other = REGISTRY.build("synthetic", {"count": 1, "size": 32, "seed": 8}).load("relief-8")
    np.testing.assert_array_equal(sample.truth, other.truth)
    np.testing.assert_array_equal(sample.photo, other.photo)
    assert not np.array_equal(sample.truth, dataset.load("relief-9").truth)
    truth = torch.from_numpy(sample.truth)[None, None]
    expected = normals_from_depth(truth, sample.camera)[0].permute(1, 2, 0)
    np.testing.assert_allclose(sample.normals, expected, atol=1e-6)
    with pytest.raises(InputError, match="'mid-8' is not an image"):
        dataset.load("mid-8")
    with pytest.raises(ConfigError, match="split"):
        REGISTRY.build("synthetic", {"split": "narrow"})


def test_synthetic_splits_have_strengths_and_skies() -> None:
    options = {"count": 2, "size": 32, "seed": 7}
    faint = REGISTRY.build("synthetic", {**options, "split": "sky", "strength": 0.5})
    assert faint.names() == ["sky-0.5-7", "sky-0.5-8"]
    sample = faint.load("sky-0.5-8")
    assert sample.sky is not None
    assert 0 < sample.sky.mean() < 0.5
    assert ((sample.depth() == 0).numpy() == sample.sky).all()
    assert (sample.normals[sample.sky] == 0).all()
    assert REGISTRY.build("synthetic", {**options, "split": "broad"}).load("broad-7").sky is None
    for split in ("rooms", "unseen-rooms"):
        room = REGISTRY.build("synthetic", {**options, "split": split}).load(f"{split}-8")
        assert 35 <= room.camera.field_of_view <= 80
        assert room.pixels().shape == room.normals.shape == (32, 32, 3)
        assert ((room.depth() == 0).numpy() == room.sky).all()
        assert (room.normals[room.sky] == 0).all()
        assert room.albedo.shape == (32, 32, 3)
        assert room.albedo[~room.sky].min() >= 0.02
        assert np.allclose(room.albedo[room.sky], room.pixels()[room.sky] ** 2.2, atol=0.01)
    stored = REGISTRY.build("synthetic", {"split": "path-traced"})
    assert len(stored.names()) == 24
    assert stored.load("path-traced-23").pixels().shape == (96, 96, 3)
    with pytest.raises(ConfigError, match="strength"):
        REGISTRY.build("synthetic", {"strength": 2})
    for split in UNSHIFTED:
        with pytest.raises(ConfigError, match=f"strength 0.5: {split} has no shift to scale"):
            REGISTRY.build("synthetic", {"split": split, "strength": 0.5})
        assert REGISTRY.build("synthetic", {"split": split, "strength": 1}).names()


# --- the registry ---------------------------------------------------------------------------------


def test_the_registry_is_that_of_the_issue() -> None:
    assert set(REGISTRY.entries()) >= NEEDS_ROOT | {"motorcycle", "synthetic"}
    assert REGISTRY.group == "redepth.datasets"
    for entry in REGISTRY.entries().values():
        assert entry.summary


def test_a_data_set_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_entries", dict(REGISTRY._entries))

    @datasets.register("mine")
    class Mine:
        """Two photos of mine."""

        def __init__(self, bright: bool = False) -> None:
            self.bright = bright

        def check(self) -> list[datasets.Missing]:
            return []

        def names(self) -> list[str]:
            return require_some([], self, Path("here"))

        def load(self, name: str) -> Sample:
            return Sample(name, pixels() / np.float32(255), numbers())

    assert REGISTRY.build("mine", {"bright": True}).bright
    with pytest.raises(InputError, match="here: no image with ground truth there"):
        REGISTRY.build("mine", {}).names()

    @datasets.register("half")
    class Half:
        """No names."""

        def check(self) -> list[datasets.Missing]:
            return []

    with pytest.raises(
        ConfigError, match=r"lacks load, names, which redepth.data.datasets.base.Dataset requires"
    ):
        REGISTRY.build("half", {})


# --- no hits --------------------------------------------------------------------------------------


def sky(value: float) -> NDArray[np.float32]:
    """Depth of 1 to 60 with a sky in the first three rows."""
    values = numbers()
    values[:3] = value
    return values


def with_sky(name: str, root: Path, value: float) -> Sample:
    """A sample of a data set whose files mean by ``value`` that nothing was hit."""
    if name == "eth3d":
        eth3d_photo(root, "pipes", "DSC_0002")
        raw(root / "pipes" / "ground_truth_depth" / "dslr_images" / "DSC_0002.JPG", sky(value).tobytes())
    elif name == "diode":
        image, _ = diode_image(root, "outdoor")
        np.save(root / "val" / f"{image}_depth.npy", sky(value)[..., None])
        np.save(root / "val" / f"{image}_depth_mask.npy", np.ones((HEIGHT, WIDTH), np.float32))
    elif name == "sintel":
        photo(root / "training" / "final" / "alley_1" / "frame_0001.png")
        raw(root / "training" / "depth" / "alley_1" / "frame_0001.dpt", dpt(sky(value)))
    elif name == "kitti":
        kitti_frame(root, "0000000069")
        depth = root / "val" / DRIVE / "proj_depth" / "groundtruth" / "image_02" / "0000000069.png"
        grey16(depth, np.where(np.arange(HEIGHT)[:, None] < 3, value, numbers() * 256).astype(np.uint16))
    elif name == "nyuv2":
        photo(root / "rgb_0009.png")
        stored = np.where(np.arange(HEIGHT)[:, None] < 3, value, numbers() * 100).astype(np.uint16)
        grey16(root / "depth_0009.png", stored)
    elif name == "middlebury-2021":
        photo(root / "artroom1" / "im0.png")
        pfm(root / "artroom1" / "disp0.pfm", sky(value))
        text = CALIB.replace("doffs=124.343", "doffs=0")
        (root / "artroom1" / "calib.txt").write_text(text)
    elif name == "folder":
        photo(root / "photos" / "a.png")
        (root / "depth").mkdir()
        np.save(root / "depth" / "a.npy", sky(value))
    dataset = build(name, root)
    return dataset.load(dataset.names()[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("eth3d", "diode", "sintel", "folder")
            for value in (np.inf, 1e10, 65504)
        ),
        ("kitti", 65535),
        ("nyuv2", 65535),
        ("middlebury-2021", np.inf),
    ],
)
def test_a_sky_of_no_hits_is_left_out_by_every_reader(name: str, value: float, tmp_path: Path) -> None:
    sample = with_sky(name, tmp_path, value)
    one = load_protocol(
        {"name": "x", "alignment": {"disparity": "affine-disparity", "depth": "affine-depth"}}
    )
    prediction = np.linspace(1, 2, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    found = measure(one, prediction, prepare(one, sample))
    assert not found.mask[:3].any()
    assert found.row.pixels == (HEIGHT - 3) * WIDTH
    left = found.row.left_out
    # A disparity without a match is unknown depth: a reader that computes depth stores 0.
    reason = "zero" if name == "middlebury-2021" else "no_hit" if np.isfinite(value) else "not_finite"
    assert left[reason] == 3 * WIDTH
    assert bool(found.row.warnings) == (reason != "zero")

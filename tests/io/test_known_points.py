from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redepth import io
from redepth.errors import InputError


def csv(folder: Path, text: str) -> Path:
    path = folder / "points.csv"
    path.write_text(text)
    return path


def test_a_table_counts_pixels_from_the_centre_of_the_top_left_one(tmp_path: Path) -> None:
    points = io.load_known_points(csv(tmp_path, "# tape\nx, y, metres\n0,0,2.5\n\n9,3.5,1e1\n"), 4, 10)
    assert points.x.tolist() == pytest.approx([0.05, 0.95])
    assert points.y.tolist() == pytest.approx([0.125, 1.0])
    assert points.depth.tolist() == [2.5, 10.0]
    assert points.sigma is None
    with_sigma = io.load_known_points(csv(tmp_path, "1,1,2,0.1\n2,2,3,0.2\n"), 4, 10)
    assert with_sigma.sigma is not None
    assert with_sigma.sigma.tolist() == [0.1, 0.2]


def test_points_outside_of_the_photo_stay_as_long_as_most_are_inside(tmp_path: Path) -> None:
    points = io.load_known_points(csv(tmp_path, "1,1,2\n10,2,3\n2,2,3\n"), 4, 10)
    assert points.x.tolist() == pytest.approx([0.15, 1.05, 0.25])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no points"),
        ("x,y,metres\n", "holds no points"),
        ("1,2\n", "line 1: has 2 columns"),
        ("1,2,3\n1,2,3,4\n", "line 2: has 4 columns"),
        ("1,2,3\n1,b,3\n", "line 2: '1,b,3' are not numbers"),
        ("a,b,c\n1,2,3\n", "line 1: 'a,b,c' are not numbers"),
        ("x,y,metres\n1,2,nan\n", "line 2: a number is not finite"),
        ("1,2,3\n10,2,3\n", r"line 2: \(10, 2\) is outside of the photo of 10 x 4 pixels, and 1 of 2"),
        ("-1,2,3\n", "outside of the photo"),
        ("1,2,0\n", "above 0 metres, got 0"),
        ("1,2,-3\n", "above 0 metres, got -3"),
        ("1,2,3,0\n", "above 0 metres, got 0"),
        ("# c\n1,2,3\n\n1,2,4\n", r"line 4: \(1, 2\) is in line 2, too"),
    ],
)
def test_a_wrong_table_is_refused_with_the_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        io.load_known_points(csv(tmp_path, text), 4, 10)


def test_a_sparse_map_in_each_format_gives_its_known_pixels(tmp_path: Path) -> None:
    depth = np.zeros((4, 10), np.float32)
    depth[1, 2], depth[3, 9] = 2.5, 80.0
    np.save(tmp_path / "sparse.npy", np.where(depth > 0, depth, np.nan))
    Image.fromarray((depth * 256).astype(np.uint16)).save(tmp_path / "sparse.png")
    for name in ("sparse.npy", "sparse.png"):
        points = io.load_known_points(tmp_path / name, 4, 10)
        assert points.x.tolist() == pytest.approx([0.25, 0.95])
        assert points.y.tolist() == pytest.approx([0.375, 0.875])
        assert points.depth.tolist() == [2.5, 80.0]
    with pytest.raises(InputError, match="they must be one size"):
        io.load_known_points(tmp_path / "sparse.npy", 4, 11)
    np.save(tmp_path / "sparse.npy", -depth)
    with pytest.raises(InputError, match=r"column 2, row 1 is -2\.5"):
        io.load_known_points(tmp_path / "sparse.npy", 4, 10)
    np.save(tmp_path / "sparse.npy", 0 * depth)
    with pytest.raises(InputError, match="no known depth"):
        io.load_known_points(tmp_path / "sparse.npy", 4, 10)
    Image.fromarray(depth.astype(np.uint8)).save(tmp_path / "sparse.png")
    with pytest.raises(InputError, match="not 16-bit grey"):
        io.load_known_points(tmp_path / "sparse.png", 4, 10)


# --- COLMAP ---------------------------------------------------------------------------------------

# A quarter turn about y takes the world's x axis to the camera's -z axis and z to x.
POSE = (np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0, 0.0, 0.0, 10.0)
CLOUD = {7: (4.0, 1.0, 2.0), 8: (6.0, 0.0, 0.0), 2**40: (12.0, 0.0, 0.0)}
SEEN = [(5.0, 2.0, 7), (0.5, 0.5, 8), (9.0, 3.0, -1), (8.0, 1.0, 2**40)]


def colmap_text(folder: Path, name: str = "set/photo.jpg") -> Path:
    pose = " ".join(map(str, POSE))
    seen = " ".join(f"{x} {y} {p}" for x, y, p in SEEN)
    (folder / "images.txt").write_text(f"# c\n1 {pose} 1 {name}\n{seen}\n2 {pose} 1 other one.jpg\n\n")
    rows = [f"{n} {x} {y} {z} 1 2 3 0.5 1 0" for n, (x, y, z) in CLOUD.items()]
    (folder / "points3D.txt").write_text("# c\n" + "\n".join(rows) + "\n")
    return folder


def colmap_binary(folder: Path) -> Path:
    images = struct.pack("<Q", 1) + struct.pack("<I7dI", 1, *POSE, 1) + b"photo.jpg\0"
    images += struct.pack("<Q", len(SEEN)) + b"".join(struct.pack("<ddq", *one) for one in SEEN)
    (folder / "images.bin").write_bytes(images)
    cloud = struct.pack("<Q", len(CLOUD))
    for number, place in CLOUD.items():
        cloud += struct.pack("<Q3d3BdQ", number, *place, 1, 2, 3, 0.5, 2) + struct.pack("<4I", 1, 0, 2, 3)
    (folder / "points3D.bin").write_bytes(cloud)
    return folder


@pytest.mark.parametrize("write", [colmap_text, colmap_binary])
def test_colmap_gives_the_depths_that_a_photo_sees(tmp_path: Path, write: object) -> None:
    points = io.load_colmap_points(write(tmp_path), "photo.jpg", 4, 10)  # type: ignore[operator]
    # z = 10 - x: the third point is behind the camera.
    assert points.depth.tolist() == pytest.approx([6.0, 4.0])
    assert points.x.tolist() == pytest.approx([0.5, 0.05])
    assert points.y.tolist() == pytest.approx([0.5, 0.125])


def test_a_wrong_reconstruction_is_refused(tmp_path: Path) -> None:
    folder = colmap_text(tmp_path)
    with pytest.raises(InputError, match="no image named 'hoto"):
        io.load_colmap_points(folder, "hoto.jpg", 4, 10)
    with pytest.raises(InputError, match="sees no point"):
        io.load_colmap_points(folder, "other one.jpg", 4, 10)
    with pytest.raises(InputError, match="outside of the photo of 4 x 4"):
        io.load_colmap_points(folder, "photo.jpg", 4, 4)
    (folder / "points3D.txt").write_text("7 4 1 2\n")
    with pytest.raises(InputError, match="the point 8 is not in the cloud"):
        io.load_colmap_points(folder, "photo.jpg", 4, 10)
    (folder / "points3D.txt").write_text("7 4 1\n")
    with pytest.raises(InputError, match="line 1: not a point"):
        io.load_colmap_points(folder, "photo.jpg", 4, 10)
    (folder / "images.txt").write_text("1 1 0 0 0 0 0 0 1 photo.jpg\n1 2\n")
    with pytest.raises(InputError, match="line 1: not an image"):
        io.load_colmap_points(folder, "photo.jpg", 4, 10)


@pytest.mark.parametrize("name", ["images.bin", "points3D.bin"])
def test_binary_files_of_another_length_are_refused(tmp_path: Path, name: str) -> None:
    folder = colmap_binary(tmp_path)
    whole = (folder / name).read_bytes()
    for content in (whole[:-1], whole + b"\0", struct.pack("<Q", 2**60) + whole[8:], whole[:20]):
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match="cut off or damaged"):
            io.load_colmap_points(folder, "photo.jpg", 4, 10)


# --- normals and planes ---------------------------------------------------------------------------


def test_normals_are_read_from_pictures_and_arrays(tmp_path: Path) -> None:
    normals = np.zeros((3, 4, 3), np.float32)
    normals[..., 2] = 1.0
    normals[1, 1] = (0.6, 0.0, 0.8)
    np.save(tmp_path / "n.npy", normals)
    assert io.load_normals(tmp_path / "n.npy") == pytest.approx(normals)
    picture = np.rint((normals + 1) / 2 * 255).astype(np.uint8)
    picture[0, 0] = 0
    Image.fromarray(picture).save(tmp_path / "n.png")
    read = io.load_normals(tmp_path / "n.png")
    assert np.isnan(read[0, 0]).all()
    assert read[1, 1] == pytest.approx(normals[1, 1], abs=0.01)
    Image.fromarray(picture).save(tmp_path / "n.jpg")
    with pytest.raises(InputError, match="compression"):
        io.load_normals(tmp_path / "n.jpg")
    Image.fromarray(picture[..., 0]).save(tmp_path / "n.png")
    with pytest.raises(InputError, match="is grey"):
        io.load_normals(tmp_path / "n.png")
    np.save(tmp_path / "n.npy", 5 * normals)
    with pytest.raises(InputError, match="length of 5"):
        io.load_normals(tmp_path / "n.npy")
    np.save(tmp_path / "n.npy", 0 * normals)
    with pytest.raises(InputError, match="no normal"):
        io.load_normals(tmp_path / "n.npy")


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [2, 2]], np.uint8)
    np.save(tmp_path / "l.npy", labels)
    Image.fromarray(labels).save(tmp_path / "l.png")
    assert io.load_labels(tmp_path / "l.npy").tolist() == io.load_labels(tmp_path / "l.png").tolist()
    np.save(tmp_path / "l.npy", labels / 2)
    with pytest.raises(InputError, match="whole numbers"):
        io.load_labels(tmp_path / "l.npy")
    Image.fromarray(0 * labels).save(tmp_path / "l.png")
    with pytest.raises(InputError, match="marks no region"):
        io.load_labels(tmp_path / "l.png")

"""Which photos there are, what belongs to them, and where their results go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redepth import io
from redepth.errors import InputError
from tests.support.image_files import assert_one_line


def test_find_photos_expands_in_order_without_duplicates(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.webp", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "sub.jpg").mkdir()
    (tmp_path / "sub.jpg" / "d.tif").touch()
    a, b, c, d = (tmp_path / n for n in ("a.png", "b.JPG", "c.webp", "sub.jpg/d.tif"))
    assert io.find_photos([tmp_path]) == [a, b, c]
    assert io.find_photos([c, str(tmp_path), tmp_path / "sub.jpg" / ".." / "a.png"]) == [c, a, b]
    assert io.find_photos([tmp_path / "*"]) == [a, b, c]
    assert io.find_photos([tmp_path / "**" / "*.*"]) == [a, b, c, d]
    assert io.find_photos([tmp_path / "?.[pw]*"]) == [a, c]


def test_find_photos_keeps_a_missing_file_and_a_literal_bracket(tmp_path: Path) -> None:
    bracket = tmp_path / "a[1].jpg"
    bracket.touch()
    missing = tmp_path / "missing.jpg"
    assert io.find_photos([missing, bracket]) == [missing, bracket]


def test_find_photos_names_what_is_empty(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for path in (tmp_path, tmp_path / "*.jpg", tmp_path / "*.txt"):
        with pytest.raises(InputError) as error:
            io.find_photos([path])
        assert_one_line(error, path, ".jpg")
    with pytest.raises(InputError, match="no photo given"):
        io.find_photos([])


def test_output_folders_are_distinct_and_stable() -> None:
    photos = [
        "x/a.jpg",
        "y/a.png",
        "A.webp",
        "a-2.jpg",
        "b.c.jpg",
        "caf\u00e9.jpg",
        "cafe\u0301.jpg",
    ]
    names = [folder.name for folder in io.output_folders(photos, "out")]
    assert names == ["a", "a-2", "A-3", "a-2-2", "b.c", "caf\u00e9", "cafe\u0301-2"]
    assert len({name.casefold() for name in names}) == len(names)
    for count in range(len(photos)):
        shorter = io.output_folders(photos[:count], "out")
        assert shorter == io.output_folders(photos, "out")[:count]
    assert io.output_folders(["a.jpg"], Path("out")) == [Path("out/a")]


def test_no_folder_lies_outside_and_every_name_fits(tmp_path: Path) -> None:
    names = [
        "...jpg",
        "..jpg",
        ".hidden.jpg",
        ".redepth-0.jpg",
        "nul.jpg",
        "x" * 251 + ".jpg",
        "x" * 251 + ".png",
    ]
    names += [
        "\u6f22" * 84 + "a.jp",
        "a ..jpg",
        "y" * 255,
        "two\nlines.png",
        os.fsdecode(b"bad\xff.jpg"),
        "=.jpg",
    ]
    folders = io.output_folders(
        [f"{place}/{name}" for place in ("p", "q") for name in names], tmp_path / "out"
    )
    for folder in folders:
        assert folder.parent == tmp_path / "out"
        folder.mkdir(parents=True)  # an error if one is there already
    assert len(list((tmp_path / "out").iterdir())) == 2 * len(names)
    assert not list((tmp_path / "out").glob(".*"))


def test_a_folder_is_that_of_its_photo_under_every_locale(tmp_path: Path) -> None:
    photo = tmp_path / os.fsdecode("caf\u00e9.png".encode())
    ascii_locale = str(tmp_path / "caf\u00e9.png".encode().decode("ascii", "surrogateescape"))
    io.save_json(tmp_path / "out" / "caf\u00e9" / "run.json", {"photo": {"source": io.as_text(photo)}})
    assert io.output_folders([photo], tmp_path / "out") == [tmp_path / "out" / "caf\u00e9"]
    # The folder's name is the same bytes; here, under another locale, it is not there yet.
    assert [io.as_text(f) for f in io.output_folders([ascii_locale], tmp_path / "out")] == [
        str(tmp_path / "out" / "caf\u00e9")
    ]


def test_an_input_that_is_too_long_for_a_name_is_left_to_the_reader() -> None:
    assert io.find_photos(["x" * 300 + ".png", "*" * 300 + "x"][:1]) == [Path("x" * 300 + ".png")]


def test_a_companion_is_the_file_given_or_that_of_the_photos_name(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    for name in ("a.png", "b.npy", "twice.png", "twice.npy", ".hidden.png"):
        (folder / name).touch()
    (folder / "e").mkdir()
    photos = [Path(name) for name in ("x/a.jpg", "b.jpg", "twice.jpg", "none.jpg", "e.jpg")]
    assert io.companions(photos, folder, "mask") == {photos[0]: folder / "a.png", photos[1]: folder / "b.npy"}
    assert io.companions(photos[:1], tmp_path / "any.png", "mask") == {photos[0]: tmp_path / "any.png"}
    with pytest.raises(
        InputError, match=r"any\.png: a mask belongs to one photo, 5 were given; give a folder"
    ):
        io.companions(photos, tmp_path / "any.png", "mask")


def test_formats_are_read_or_named(tmp_path: Path) -> None:
    readable = ["a.avif", "b.bmp", "c.gif", "d.ppm", "e.pgm", "f.tga", "g.jp2", "h.jpeg", "i.heic"]
    others = ["j.hdr", "k.psd", "l.DNG", "m.svg", "n.eps", "o.jxl", "p.pdf"]
    for name in (*readable, *others, "notes.txt", "map.npy", ".hidden.hdr"):
        (tmp_path / name).touch()
    lines: list[str] = []
    assert io.find_photos([tmp_path], warn=lines.append) == [tmp_path / name for name in readable]
    assert lines == [
        f"{tmp_path}: {', '.join(others[:5])} and 2 more cannot be read and left out; "
        "convert to JPEG, PNG or TIFF"
    ]
    lines.clear()
    assert io.find_photos([tmp_path / "[a-j].*"], warn=lines.append) == [tmp_path / n for n in readable]
    assert lines[0].startswith(f"{tmp_path / '[a-j].*'}: j.hdr cannot be read")
    with pytest.raises(InputError, match=r"matches no photo that can be read, only j\.hdr; photos end in"):
        io.find_photos([tmp_path / "*.hdr"])


@pytest.mark.parametrize(
    "name", ["x" * 256 + ".jpg", "a\0b.jpg", "~nobody-of-this-name/a.jpg", "a\x1b\n.jpg"]
)
def test_names_that_cannot_be_are_kept_for_their_own_error(name: str, tmp_path: Path) -> None:
    """The other photos still run; what is wrong with this one is said when it is read."""
    if "\0" in name:
        with pytest.raises(InputError, match="zero byte"):
            io.find_photos([tmp_path / name])
    else:
        assert io.find_photos([tmp_path / name]) == [tmp_path / name]
    assert io.companions([tmp_path / name], tmp_path, "mask") == {}
    assert io.companions(["a.jpg"], tmp_path / name, "mask") == {Path("a.jpg"): tmp_path / name}
    for read in (io.load_photo, io.load_mask, io.image_size, lambda path: io.load_depth_map(f"{path}.npy")):
        with pytest.raises(InputError):
            read(tmp_path / name)


def test_a_link_to_nothing_and_a_pipe_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "c.png")
    os.mkfifo(tmp_path / "d.png")
    photos = [tmp_path / name for name in ("a.png", "b.png", "c.png", "d.png")]
    assert io.find_photos([tmp_path]) == photos
    assert io.find_photos([tmp_path / "*.png"]) == photos
    for path in photos[1:]:
        with pytest.raises(InputError) as error:
            io.load_photo(path)
        assert_one_line(error, path)


def test_an_empty_name_is_not_the_working_folder() -> None:
    with pytest.raises(InputError, match="an empty name is no photo"):
        io.find_photos([""])

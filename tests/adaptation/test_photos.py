"""Photos of an adaptation: found, named, split, and streamed in an order that the seed decides."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from redepth import io
from redepth.adaptation import photos as files
from redepth.adaptation.lessons import Lesson, LoadedPhoto, Place, purpose_generator
from redepth.adaptation.photos import PhotoFile
from redepth.adaptation.streaming import Order, load, slots_of, stream
from redepth.config.adaptation import Adapt
from redepth.errors import InputError
from tests.support.small_photos import write_photo
from tests.support.trainings import LikeGrey, some_photos


def named(count: int) -> list[PhotoFile]:
    return [PhotoFile(f"p{i}", Path(f"p{i}.png"), f"{i:064x}") for i in range(count)]


def test_photos_have_names_and_hashes(tmp_path: Path) -> None:
    first = write_photo(tmp_path / "a" / "coins.png", 0)
    second = write_photo(tmp_path / "b" / "Coins.png", 1)
    found = files.find([tmp_path / "a", tmp_path / "b"])
    assert [photo.name for photo in found] == ["coins", "Coins-2"]
    assert [photo.path for photo in found] == [first, second]
    assert [photo.sha256 for photo in found] == [io.sha256_of(first), io.sha256_of(second)]


def test_a_copy_is_taken_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = write_photo(tmp_path / "a.png", 0)
    shutil.copy(first, tmp_path / "b.png")
    with caplog.at_level(logging.WARNING):
        assert [photo.name for photo in files.find([tmp_path])] == ["a"]
    assert "the same photo as" in caplog.text


def test_what_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        files.find([tmp_path / "gone.png"])
    (tmp_path / "bad.png").write_bytes(b"no photo")
    write_photo(tmp_path / "good.png")
    found = files.find([tmp_path])
    with pytest.raises(InputError, match=r"bad\.png"):
        files.decoded(found[0])
    files.decoded(found[1])
    with pytest.raises(InputError, match=r"good\.png.*pixels"):
        files.decoded(found[1], max_pixels=100)


def test_the_split_depends_on_contents_and_seed_alone() -> None:
    photos, settings = named(40), Adapt(held_out=0.1)
    training, held_out = files.split(photos, settings, 0)
    assert len(held_out) == 4
    assert sorted([*training, *held_out], key=lambda p: p.sha256) == photos
    other = files.split(photos[::-1], settings, 0)
    assert set(other[1]) == set(held_out)
    assert set(files.split(photos, settings, 1)[1]) != set(held_out)
    # A photo more moves at most one other photo.
    more = set(files.split(named(41), settings, 0)[1])
    assert len(more & set(held_out)) >= 3


@pytest.mark.parametrize(
    ("count", "share", "most", "expected"),
    [(10, 0.0, 16, 0), (10, 0.01, 16, 1), (10, 0.5, 3, 3), (10, 1.0, 16, 9), (2, 0.1, 16, 1)],
)
def test_the_number_of_held_out_photos(count: int, share: float, most: int, expected: int) -> None:
    training, held_out = files.split(named(count), Adapt(held_out=share, most_held_out=most), 0)
    assert len(held_out) == expected
    assert len(training) == count - expected


def test_one_photo_cannot_be_both() -> None:
    with pytest.raises(InputError, match=r"adapt\.held_out=0"):
        files.split(named(1), Adapt(), 0)
    assert files.split(named(1), Adapt(held_out=0), 0) == (named(1), [])


def test_a_photo_that_was_replaced_is_not_read(tmp_path: Path) -> None:
    photo = files.find([write_photo(tmp_path / "a.png", 0)])[0]
    former = photo.path.read_bytes()
    write_photo(photo.path, 1)
    for read_it in (files.decoded, load):
        with pytest.raises(InputError, match=r"a\.png: changed since the run began; .* --fresh"):
            read_it(photo)
    photo.path.write_bytes(former)
    assert np.array_equal(files.decoded(photo).values, io.load_photo(photo.path))


def test_8_bits_where_they_are_exact(tmp_path: Path) -> None:
    coloured = files.find([write_photo(tmp_path / "a.png")])[0]
    photo = load(coloured)
    assert photo.pixels.dtype == torch.uint8
    expected = torch.from_numpy(io.load_photo(coloured.path)).permute(2, 0, 1)[None]
    assert torch.equal(photo.tensor(torch.device("cpu")), expected)
    deep = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "b.png")
    photo = load(files.find([tmp_path / "b.png"])[0])
    assert photo.pixels.dtype == torch.float32
    expected = torch.from_numpy(io.load_photo(tmp_path / "b.png")).permute(2, 0, 1)[None]
    assert torch.equal(photo.tensor(torch.device("cpu")), expected)


def lessons(photos: list[PhotoFile]) -> list[Lesson]:
    return [
        Lesson("learn", tuple(photos[:5]), 3, LikeGrey()),
        Lesson("keep", tuple(photos[5:]), 2, LikeGrey()),
    ]


def test_each_pass_sees_each_photo_once_in_an_order_of_its_own() -> None:
    both = lessons(named(7))
    order, slots = Order(both, 0), slots_of(both)
    assert [(slot.number, slot.lesson, slot.turn) for slot in slots] == [
        (0, 0, 0),
        (1, 0, 1),
        (2, 0, 2),
        (3, 1, 0),
        (4, 1, 1),
    ]
    drawn = [order(step, slot) for step in range(10) for slot in slots]
    learned = [photo for lesson, photo in drawn if lesson == 0]
    passes = [tuple(learned[i : i + 5]) for i in range(0, 30, 5)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes)
    assert len(set(passes)) > 3
    assert Counter(photo for lesson, photo in drawn if lesson == 1) == {0: 10, 1: 10}


def test_a_place_in_the_order_needs_no_history() -> None:
    both = lessons(named(7))
    order, slots = Order(both, 3), slots_of(both)
    whole = {(step, slot.number): order(step, slot) for step in range(8) for slot in slots}
    alone = Order(both, 3)
    for step in (7, 2, 5):
        for slot in slots[1::2]:
            assert alone(step, slot) == whole[step, slot.number]
    other = Order(both, 4)
    assert any(other(step, slot) != whole[step, slot.number] for step in range(8) for slot in slots)


def test_streams_of_random_numbers_differ_by_purpose_seed_step_and_slot() -> None:
    places = [Place(seed, step, slot, 0.0) for seed in (0, 1) for step in (0, 1) for slot in (0, 1)]
    drawn = [float(torch.rand((), generator=place.generator())) for place in places]
    drawn.append(float(torch.rand((), generator=purpose_generator("order", 0, 0, 0))))
    assert len(set(drawn)) == 9
    assert drawn[0] == float(torch.rand((), generator=Place(0, 0, 0, 0.5).generator()))


def read(photos: list[PhotoFile], loaders: int, start: int = 0) -> list[LoadedPhoto]:
    both = lessons(photos)
    return list(stream(both, slots_of(both), range(start, 4), seed=0, loaders=loaders))


def test_the_stream_follows_the_order(tmp_path: Path) -> None:
    photos = some_photos(tmp_path, 7)
    both = lessons(photos)
    order = Order(both, 0)
    places = [order(step, slot) for step in range(4) for slot in slots_of(both)]
    found = read(photos, 0)
    assert [photo.file for photo in found] == [both[lesson].photos[index] for lesson, index in places]
    assert [photo.name for photo in read(photos, 0, 2)] == [photo.name for photo in found[10:]]


@pytest.mark.slow
def test_loaders_change_neither_order_nor_values(tmp_path: Path) -> None:
    photos = some_photos(tmp_path, 7)
    here, there = read(photos, 0), read(photos, 2)
    assert [photo.file for photo in here] == [photo.file for photo in there]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(here, there, strict=True))


@pytest.mark.slow
def test_an_error_in_a_loader_is_one_line(tmp_path: Path) -> None:
    photos = some_photos(tmp_path, 7)
    photos[3].path.write_bytes(b"no photo")
    with pytest.raises(InputError, match=r"photo3\.png") as error:
        read(photos, 1)
    assert "\n" not in str(error.value)

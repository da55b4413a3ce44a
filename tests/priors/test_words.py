from __future__ import annotations

import math

import pytest
import torch

from redepth.contracts import Illumination, Material
from redepth.errors import InputError
from redepth.priors.words import LIGHT_WORDS, caption_vector, known_words, light_rows, word_rows

WORDS = ("room", "table", "glossy", "hills", "close-up")


@pytest.mark.parametrize(
    ("caption", "known"),
    [
        ("a Room with two tables", ["room", "table"]),
        ("a glossy hill, a close-up", ["glossy", "hills", "close-up"]),
        ("rooms; ROOM", ["room"]),
        ("gloss, tablet, roommate, close up", []),
        ("", []),
    ],
)
def test_the_words_of_a_caption(caption: str, known: list[str]) -> None:
    assert known_words(WORDS, caption) == known


def test_a_caption_is_a_one_for_each_word_and_a_last_one() -> None:
    assert caption_vector(WORDS, "hills and a room of cats").tolist() == [1, 0, 0, 1, 0, 1]
    assert word_rows(WORDS, ["table", "nothing"]).tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize("caption", ["", "a cat on a sofa"])
def test_a_caption_without_a_known_word_is_refused_with_the_known_ones(caption: str) -> None:
    with pytest.raises(InputError, match=r"none of the words that the prior knows: room, table, glossy"):
        caption_vector(WORDS, caption)


@pytest.mark.parametrize(
    ("x", "y", "share", "said"),
    [
        (0.0, 0.0, 0.5, {"front"}),
        (0.4, 0.0, 0.7, {"right", "glossy"}),
        (-0.4, 0.2, 0.3, {"left", "matt"}),
        (0.2, 0.9, 0.5, {"above", "oblique"}),
        (-0.9, -0.9, 0.5, {"left", "below", "oblique"}),
    ],
)
def test_words_of_a_light(x: float, y: float, share: float, said: set[str]) -> None:
    """x to the right, y up: a light from the upper right is right and above."""
    direction = torch.tensor([[x, y, 1.0]]) / math.hypot(x, y, 1.0)
    one = torch.tensor([1.0])
    material = Material(diffuse=(1 - share) * one, specular=share * one, shininess=16 * one)
    rows = light_rows(("room", *LIGHT_WORDS), Illumination.of(direction, material))
    assert {word for word, row in zip(("room", *LIGHT_WORDS), rows[0].tolist(), strict=True) if row} == said

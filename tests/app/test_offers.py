from pathlib import Path

import pytest

from redepth.app.offers import Offer, all_offers, first_choice, offer_of, runnable
from redepth.errors import ConfigError
from tests.support.presets import write


def test_the_embedded_preset_can_run() -> None:
    offer = offer_of("embedded", "cpu")
    assert (offer.members, offer.steps, offer.hindrance) == (3, 40, "")
    assert not offer.reads_prompt
    assert offer.description


def test_a_preset_without_weights_says_what_it_needs() -> None:
    offer = offer_of("re-depth-anything", "cpu")
    assert offer.hindrance.endswith("redepth download re-depth-anything")
    assert offer.reads_prompt


def test_all_presets_that_ship_are_there(tmp_path: Path) -> None:
    own = write(tmp_path, "mine.yaml", "extends: smoke\noptim:\n  members: 4\n")
    offers = all_offers(str(own), "cpu")
    assert offers[0].members == 4
    assert {"embedded", "smoke", "re-depth-anything"} < {offer.name for offer in offers}
    assert first_choice(offers, str(own)) == "mine.yaml"


def test_ones_own_preset_is_offered_without_its_folders(tmp_path: Path) -> None:
    own = str(write(tmp_path, "mine.yaml", "extends: smoke\n"))
    offer = all_offers(own, "cpu")[0]
    assert (offer.name, offer.source) == ("mine.yaml", own)
    assert str(tmp_path) not in f"{offer.name} {offer.description}"
    assert offer_of("smoke", "cpu").source == "smoke"


def test_ones_own_preset_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    own = write(tmp_path, "mine.yaml", "extends: smoke\noptim:\n  member: 4\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml cannot run here: .*member"):
        all_offers(str(own), "cpu")


def test_the_first_choice_can_run() -> None:
    offers = [Offer("re-depth-anything", hindrance="no weights"), Offer("embedded"), Offer("smoke")]
    assert first_choice(offers) == "embedded"
    assert first_choice(offers, "smoke") == "smoke"
    assert [offer.name for offer in runnable(offers)] == ["embedded", "smoke"]

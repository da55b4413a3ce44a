import threading
from pathlib import Path

import numpy as np
import pytest

from redepth import io
from redepth.app.offers import Offer, offer_of
from redepth.app.service import Service, required_photo, shown_name
from redepth.errors import ConfigError, InputError
from tests.support.presets import write


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(
        tmp_path / "files", [Offer("smoke", members=2, steps=3), Offer("big", hindrance="weights")]
    )


def test_messages_have_no_folder_of_this_machine(service: Service) -> None:
    photo = service.folder / "abc0" / "my photo.png"
    error = InputError(f"{photo}: 8 x 8 is too small; see '{photo}'")
    assert service.explain(error) == "my photo.png: 8 x 8 is too small; see 'my photo.png'"


def test_an_unexpected_error_tells_its_class_alone(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    told = service.explain(ValueError("/secret/place"))
    assert "secret" not in told
    assert "ValueError" in told
    assert "/secret/place" in caplog.text


def test_a_photo_is_required(service: Service) -> None:
    with pytest.raises(InputError, match="upload one"):
        required_photo(None)
    assert required_photo("a.png") == Path("a.png")


def test_a_file_that_is_no_photo_is_refused_by_its_header(service: Service) -> None:
    service.folder.mkdir()
    broken = service.folder / "a.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(InputError, match="not a readable image") as error:
        service.size_of(broken)
    assert service.explain(error.value).startswith("a.png: ")


def test_only_presets_that_can_run_are_taken(service: Service) -> None:
    settings = service.settings("smoke", 2, 3, "", 5, "a prompt that this prior does not read")
    assert (settings.members, settings.steps, settings.prompt) == (None, None, "")
    with pytest.raises(ConfigError, match="not offered"):
        service.settings("big")


def folder_of_many_letters(parent: Path) -> Path:
    """A folder whose path messages cut."""
    folder = parent / ("x" * 90)
    folder.mkdir()
    return folder


def test_ones_own_preset_is_repeated_by_its_path_and_told_by_its_name(tmp_path: Path) -> None:
    own = write(tmp_path, "mine.yaml", "extends: smoke\n")
    own = own.rename(folder_of_many_letters(tmp_path) / own.name)
    service = Service(tmp_path / "files", [offer_of(str(own), "cpu"), Offer("smoke")])
    settings = service.settings("mine.yaml", 1)
    assert f"--preset {own}" in settings.command("a.png")
    assert service.explain(ConfigError(f"{own}: no such member")) == "mine.yaml: no such member"
    with pytest.raises(ConfigError, match=r"choose mine\.yaml, smoke") as error:
        service.settings(str(own))
    assert str(tmp_path) not in service.explain(error.value)

    photo = tmp_path / "a.png"
    io.save_png(photo, np.zeros((20, 20, 3), np.uint8))
    own.unlink()
    run = service.run(photo, settings, threading.Event())
    assert not any("xx" in str(update) for update in run.updates())
    with pytest.raises(ConfigError) as error:
        run.result()
    assert service.explain(error.value) == "preset file 'mine.yaml' does not exist"


def test_a_name_is_shown_as_text() -> None:
    assert shown_name(Path("/a/b/brick.png")) == "brick.png"

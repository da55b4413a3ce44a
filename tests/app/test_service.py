from pathlib import Path

import pytest

from redepth.app.offers import Offer
from redepth.app.service import Service, required_photo, shown_name
from redepth.errors import ConfigError, InputError


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


def test_a_name_is_shown_as_text() -> None:
    assert shown_name(Path("/a/b/brick.png")) == "brick.png"

"""What is refused in a preset: every message names the key, and what may stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from redepth.config import load_preset
from tests.support.presets import PARTS, refusal, write


@pytest.mark.parametrize("override", ["", "members", "=3", "optim.=3", ".optim=3", "a..b=3", "a.b=[1", "a={"])
def test_an_override_of_the_wrong_form_is_named(override: str) -> None:
    assert f"override '{override}'" in refusal("smoke", override)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.stpes=3", ("unknown key 'optim.stpes'", "did you mean 'steps'?", "members, ")),
        ("rendrer.lights=3", ("unknown key 'rendrer'", "did you mean 'renderer'?")),
        ("optim.early_stop.windw=3", ("'optim.early_stop.windw'", "did you mean 'window'?")),
        ("optim.learning_rates.decodr=1", ("'optim.learning_rates.decodr'", "did you mean 'decoder'?")),
        (
            "renderer.lihgts=3",
            ("unknown key 'renderer.lihgts'", "did you mean 'lights'?", "(valid: albedo, "),
        ),
        ("renderer.nmae=x", ("'renderer.nmae'", "did you mean 'name'?")),
        ("optim.objectives.smoothness.wieght=1", ("'optim.objectives.smoothness.wieght'", "'weight'?")),
        ("optim.objectives.smothness.weight=1", ("objective 'smothness'", "did you mean 'smoothness'?")),
        ("depth_model.name=depth-anythin", ("depth_model 'depth-anythin'", "did you mean 'depth-anything'?")),
        ("prior.name=stable-difusion", ("prior 'stable-difusion'", "did you mean 'stable-diffusion'?")),
    ],
)
def test_an_unknown_key_comes_with_the_nearest(override: str, words: tuple[str, ...]) -> None:
    message = refusal("smoke", override)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.steps=0", ("optim.steps", "greater than or equal to 1", "got 0")),
        ("optim.steps=100001", ("optim.steps", "less than or equal to 100000")),
        ("optim.members=1001", ("optim.members", "less than or equal to 1000")),
        ("optim.members=1.5", ("optim.members", "integer", "got 1.5")),
        ("optim.members=ten", ("optim.members", "integer", "got 'ten'")),
        ("optim.members=", ("optim.members", "integer", "got None")),
        ("optim.members_per_batch=0", ("optim.members_per_batch: ", "'auto'", "greater than or equal to 1")),
        ("optim.weight_decay=-1", ("optim.weight_decay", "greater than or equal to 0", "got -1")),
        ("optim.weight_decay=.inf", ("optim.weight_decay", "finite", "got inf")),
        ("optim.learning_rates.decoder=.nan", ("optim.learning_rates.decoder", "finite", "got nan")),
        ("optim.objectives.smoothness.weight=.inf", ("smoothness.weight", "finite")),
        ("optim.early_stop.min_improvement=1", ("optim.early_stop.min_improvement", "less than 1")),
        ("optim.schedule=linear", ("optim.schedule", "'constant' or 'cosine'", "got 'linear'")),
        ("optim=3", ("optim: ", "dictionary", "got 3")),
        ("renderer=phong", ("renderer: ", "dictionary", "got 'phong'")),
        ("prior.guidance_scale=-1", ("prior.guidance_scale", "greater than or equal to 0")),
        ("prior.guidance_scale=.inf", ("prior.guidance_scale", "finite", "got inf")),
        ("prior.t_max=1.2", ("prior.t_max", "less than or equal to 1")),
        ("prior.dtype=fp16", ("prior.dtype", "'float16'", "got 'fp16'")),
        ("depth_model.scale=1", ("depth_model.scale", "greater than 1")),
        ("depth_model.resize_rule=fit", ("depth_model.resize_rule", "'upper_bound'")),
    ],
)
def test_a_wrong_value_comes_with_the_allowed_ones(override: str, words: tuple[str, ...]) -> None:
    message = refusal("smoke", override)
    for word in words:
        assert word in message
    assert "literal[" not in message


def test_all_that_is_wrong_is_said_with_a_hint_each() -> None:
    message = refusal("smoke", "optim.members=x", "optim.stpes=3", "optim.early_stop.windw=4")
    assert "optim.members: " in message
    assert "did you mean 'steps'?" in message
    assert "did you mean 'window'?" in message


def test_a_missing_section_is_named() -> None:
    message = refusal({"renderer": {"lights": 1}, "prior": PARTS["prior"]})
    assert "depth_model: field required" in message
    assert "renderer.name: field required" in message
    assert "prior" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("mapping",)),
        ("- a\n- b\n", ("mapping",)),
        ("optim: [1\n", ("cannot read", "line")),
        ("a: b: c\n", ("cannot read",)),
        ("optim: !!python/object:os.system {}\n", ("cannot read",)),
        ("extends: [smoke]\n", ("extends", "smoke")),
        ("extends: 3\n", ("extends", "3")),
        ("extends: smok\n", ("unknown preset 'smok'", "'smoke'")),
        ("extends: gone.yaml\n", ("gone.yaml", "does not exist")),
        ("extends: smoke\n1: 2\n", ("line 2", "key '1' is not a text")),
    ],
)
def test_a_file_that_is_no_preset_is_refused(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "mine.yaml", text))
    for word in words:
        assert word in message


def test_an_unreadable_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    assert str(path) in refusal(path)
    assert "unknown preset" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "gone.yml")


def test_a_circle_is_shown(tmp_path: Path) -> None:
    first = write(tmp_path, "first.yaml", "extends: second.yaml\n")
    write(tmp_path, "second.yaml", f"extends: {first}\n")
    message = refusal(first)
    assert "circle" in message
    assert message.index("first.yaml") < message.index("second.yaml") < message.rindex("first.yaml")
    assert "circle" in refusal({"extends": str(first)})
    assert "circle" in refusal(write(tmp_path, "self.yaml", "extends: self.yaml\n"))


def test_a_preset_cannot_be_changed_in_place() -> None:
    preset = load_preset("smoke")
    for section, key in ((preset, "name"), (preset.optim, "steps"), (preset.prior, "name")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(section, key, "other")


@pytest.mark.parametrize(
    "override",
    [
        "optim.steps=true",
        "optim.weight_decay=false",
        "optim.members_per_batch=true",
        "optim.objectives.smoothness.weight=true",
        "renderer.lights=true",
        "renderer.intrinsics=[1, 1, true, 0.5]",
        "depth_model.scale=true",
    ],
)
def test_a_boolean_is_no_number(override: str) -> None:
    message = refusal("smoke", "renderer.camera=pinhole", override)
    assert override.partition("=")[0] in message
    assert "must be a number, not true or false" in message


@pytest.mark.parametrize("word", ["on", "yes", "true", "True"])
def test_words_for_true_mean_it_where_a_choice_is_expected(word: str) -> None:
    assert load_preset("smoke", [f"optim.early_stop.enabled={word}"]).optim.early_stop.enabled is True


def test_a_section_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = "extends: smoke\noptim:\n  steps: 3\noptim:\n  members: 1\n"
    assert "line 4: the key 'optim' is there twice" in refusal(write(tmp_path, "mine.yaml", text))


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("extends: smoke\noptim: {steps: 7}\n".encode("utf-8-sig"))
    assert load_preset(path).optim.steps == 7


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding_is_refused(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("extends: smoke\ndescription: \xe9\n".encode(encoding))
    assert "UTF-8" in refusal(path)


@pytest.mark.parametrize(
    "source", ["~nobody-here", "x" * 300, "x" * 5000 + ".yaml", "a\0b", "/dev/zero", "/", ""]
)
def test_a_name_that_is_no_file_is_refused(source: str, tmp_path: Path) -> None:
    assert len(refusal(source)) < 400
    assert len(refusal({"extends": source})) < 400


@pytest.mark.parametrize(
    "override",
    [
        "optim.steps=" + "x" * 10**5,
        "a" * 10**5 + "=1",
        "optim." + "a" * 10**5 + "=1",
        "a." * 5000 + "b=1",
        "renderer.name=" + "x" * 10**5,
        "optim.performance={" + ", ".join(f"k{i}: 1" for i in range(3000)) + "}",
        "optim.steps=[[[[" + "1, " * 1000 + "]]]]",
        "optim.steps=" + "9" * 5000,
    ],
)
def test_a_message_stays_short_however_long_the_value(override: str) -> None:
    assert len(refusal("smoke", override)) < 1500


def test_a_chain_of_presets_has_an_end(tmp_path: Path) -> None:
    for i in range(40):
        write(tmp_path, f"p{i}.yaml", f"extends: p{i + 1}.yaml\n")
    assert "more than 16 presets" in refusal(tmp_path / "p0.yaml")

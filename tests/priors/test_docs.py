"""docs/priors.md names what there is, with its defaults."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from redepth import priors
from redepth.priors.distillation import DiffusionPrior
from redepth.priors.prompts import CAPTIONERS
from redepth.priors.scores import RULES
from redepth.registry import options_schema

PAGE = (Path(__file__).parents[2] / "docs" / "priors.md").read_text()
OURS = [name for name, entry in priors.REGISTRY.entries().items() if "redepth." in str(entry.target)]


@pytest.mark.parametrize("name", OURS)
def test_every_model_is_there_with_its_options_and_checkpoint(name: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    schema = options_schema(priors.REGISTRY.get(name))
    size = schema.model_fields.get("size")
    assert rows
    assert priors.REGISTRY.entries()[name].licence in rows[0]
    assert name == "ic-light" or f"`{schema.model_fields['checkpoint'].default}`" in rows[0]
    assert size is None or rows[0].endswith(f"| {size.default} |")
    missing = [option for option in schema.model_fields if f"`{option}`" not in PAGE]
    assert not missing


def test_every_rule_and_captioner_is_there() -> None:
    for score in RULES:
        assert re.search(rf"^\| `{score}` \| .*arxiv\.org", PAGE, re.MULTILINE), score
    for name, known in CAPTIONERS.items():
        assert re.search(rf"^\| `{name}` .*`{known.checkpoint}`", PAGE, re.MULTILINE), name


@pytest.mark.parametrize("column", [(1, "stable-diffusion"), (2, "ic-light"), (3, "pixel-diffusion")])
def test_the_defaults_of_the_rules_options_are_the_codes(column: tuple[int, str]) -> None:
    place, name = column
    fields = options_schema(priors.REGISTRY.get(name)).model_fields
    table = PAGE.partition("### Options of all rules")[2].partition("## Prompts")[0]
    seen = set()
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not cells[0].startswith("`"):
            continue
        options = [option.strip("` ") for option in cells[0].split(",")]
        for option, value in zip(options, (cells[place] or cells[1]).split(","), strict=True):
            default = fields[option].default
            said = value.strip("` ")
            if isinstance(default, int | float):
                assert float(said) == default, option
            else:
                assert said == ("none" if default is None else str(default)), option
            seen.add(option)
    assert seen == {f.name for f in dataclasses.fields(DiffusionPrior) if f.init} - {"score"}

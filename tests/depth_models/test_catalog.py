"""The published models: rows that hold together, and the table of them in the docs.

python -m tests.depth_models.test_catalog        # writes the table to docs/depth_models.md
"""

from __future__ import annotations

from pathlib import Path

import pytest

from redepth.depth_models import REGISTRY
from redepth.depth_models.backbone import OUTPUT_MAP
from redepth.depth_models.catalog import CATALOG, Published, hub_id

DOCS = Path(__file__).parents[2] / "docs" / "depth_models.md"
BEGIN, END = "<!-- table: python -m tests.depth_models.test_catalog -->", "<!-- end of the table -->"


def line(row: Published) -> str:
    """One row of the table in the docs."""
    cls = REGISTRY.get(row.name)
    whole = cls.supports == OUTPUT_MAP
    cells = [
        f"`{row.name}`",
        f"`{cls.__name__}`",
        f"`{row.checkpoint}`" if row.checkpoint else "-",
        row.licence or "-",
        row.predicts,
        "output map" if whole else "all",
        f"{row.millions:g} M" if row.millions else "-",
    ]
    return f"| {' | '.join(cells)} |"


def table() -> str:
    titles = ("name", "class", "hub id", "licence of the weights", "predicts", "parameterizations", "size")
    head = [f"| {' | '.join(titles)} |", f"| {' | '.join('---' for _ in titles)} |"]
    return "\n".join([*head, *map(line, CATALOG)])


def test_the_docs_have_the_table_of_all_models() -> None:
    written = DOCS.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert written == table(), "python -m tests.depth_models.test_catalog writes it anew"


def test_names_are_those_of_the_registry_and_each_once() -> None:
    names = [row.name for row in CATALOG]
    assert len(set(names)) == len(names)
    assert names == [n for n, entry in REGISTRY.entries().items() if n in names]


@pytest.mark.parametrize("row", CATALOG, ids=[row.name for row in CATALOG])
def test_a_short_name_brings_its_checkpoint_and_options_beat_it(row: Published) -> None:
    checked = REGISTRY.check(row.name, {})
    assert {k: checked[k] for k in row.defaults} == row.defaults
    if not row.checkpoint:
        assert not row.licence
        return
    assert row.licence
    assert row.millions > 0
    assert row.checkpoint.count("/") == 1
    assert REGISTRY.check(row.name, {"checkpoint": "mine/own"})["checkpoint"] == "mine/own"
    # Given as a checkpoint, the short name of any model is its hub id.
    assert hub_id(row.name) == row.checkpoint
    assert REGISTRY.build(row.name, {"checkpoint": row.name}).checkpoint == row.checkpoint


def test_the_first_name_of_a_class_has_the_classs_own_checkpoint() -> None:
    seen = set()
    for row in CATALOG:
        if row.checkpoint and row.target not in seen:
            seen.add(row.target)
            assert REGISTRY.get(row.name)().checkpoint == row.checkpoint


if __name__ == "__main__":
    before, _, rest = DOCS.read_text().partition(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}")

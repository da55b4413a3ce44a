"""The pages agree with the repository: import ranks, links, paths and commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_architecture import RANKS

ROOT = Path(__file__).parents[1]
WEIGHTS = "redepth/checkpoints/weights/README.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md", WEIGHTS)),
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
REPOSITORY_PATH = re.compile(r"`((?:redepth|tests|docs|benchmarks|training|examples)/[\w./-]+)`")
COMMAND = re.compile(r"python -m ((?:benchmarks|training|tests)[\w.]*\w)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_ranks_of_the_page_are_those_of_the_import_test(page: str) -> None:
    block = re.search(
        r"^    __main__\n(?:    .+\n)+", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert block, f"{page}: no list of ranks"
    written = [set(line.strip().split(", ")) for line in block[0].splitlines()]
    ranks = [{part.removeprefix("redepth.") for part in rank} - {"redepth"} for rank in reversed(RANKS)]
    assert written == ranks


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_point_to_something(page: Path) -> None:
    broken = []
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(f"{target}#{anchor}" if anchor else target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_paths_and_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [path for path in REPOSITORY_PATH.findall(text) if not (ROOT / path).exists()]
    for module in COMMAND.findall(text):
        path = ROOT / module.replace(".", "/")
        if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
            missing.append(f"python -m {module}")
    assert not missing

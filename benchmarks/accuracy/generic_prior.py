"""The studies of docs/generic_prior.md: their commands, the settings that were tried, and the page's tables.

    python -m benchmarks.accuracy.generic_prior tune        # settings, on the tuning scenes
    python -m benchmarks.accuracy.generic_prior run [NAME]  # the studies, by `redepth experiment generic`
    python -m benchmarks.accuracy.generic_prior page        # the tables, from the stored rows

Rows are stored in ``benchmarks/results/accuracy/generic/NAME``, those of tuning in ``tuning-NAME``. The page
also has the tables of `score_direction` and the validation of the training.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.accuracy import score_direction
from benchmarks.accuracy.results import STUDY_FILES, Workers, experiment, store
from benchmarks.accuracy.studies import REPOSITORY, SLOW, STORED, preset_today, stored_rows, stored_study
from benchmarks.accuracy.tables import grid_of
from redepth.config.hashing import preset_sha256
from redepth.experiments.summary import summarize, table
from redepth.io import save_text
from training.loop import json_lines

app = typer.Typer(add_completion=False, help=__doc__)

PAGE = REPOSITORY / "docs" / "generic_prior.md"
GENERIC, RUNS = STORED / "generic", Path("runs/generic")

KEY_ARMS = (
    "--arm re-lighting --arm 'guidance 1' --arm 'guidance 50' --arm 'told the light' --arm 'smoothness only'"
)
OTHERS = "guidance 3,guidance 7.5,guidance 15,csd,nfsd,sdi,dds,sds-bridge,low noise,high noise,told nothing"
OTHERS += ",random weights,oracle"
OTHER_ARMS = " ".join(f"--arm '{name}'" for name in OTHERS.split(","))
SLOW_SETTINGS = " ".join(f"--set {setting}" for setting in SLOW.split())
STUDIES: dict[str, str] = {
    "relief": f"generic --images 8 --split relief {KEY_ARMS}",
    "shapes": f"generic --images 6 --split shapes {KEY_ARMS}",
    "rooms": f"generic --images 6 --split unseen-rooms {KEY_ARMS} --set renderer.camera=pinhole",
    "relief-slow": f"generic --images 8 --split relief --arm 'guidance 50' {SLOW_SETTINGS}",
    "posters": "generic --images 4 --split relief --arm 'of posters'",
    "rules": f"generic --images 4 --split relief --arm re-lighting {OTHER_ARMS}",
}
"""Name -> arguments of `redepth experiment`."""

ON_TUNING_SCENES = "generic --images 8 --tuning --split relief"
TUNING_ARMS = f"{ON_TUNING_SCENES} --arm 'guidance 1' --arm 'guidance 7.5' --arm 'guidance 50'"
NO_SMOOTHNESS = "optim.objectives.smoothness.weight=0"
TUNED: dict[str, tuple[str, str]] = {
    "as-it-ships": (TUNING_ARMS, ""),
    "slow": (TUNING_ARMS, SLOW),
    "slow-no-smoothness": (
        f"{ON_TUNING_SCENES} --arm 'guidance 1' --arm 'guidance 50' --arm 'smoothness only'",
        f"{SLOW} {NO_SMOOTHNESS}",
    ),
    "slow-others": (f"{ON_TUNING_SCENES} --arm dds --arm 'low noise' --arm 'high noise'", SLOW),
}
"""Name -> arguments of `redepth experiment`, and the settings."""

HASH_DIGITS = 12


def study_arguments(name: str) -> list[str]:
    """Return a study's arguments of `redepth experiment`."""
    return shlex.split(STUDIES[name])


def tuning_arguments(name: str) -> list[str]:
    """Return the arguments by which settings were tried."""
    options, settings = TUNED[name]
    return [*shlex.split(options), *(part for setting in settings.split() for part in ("--set", setting))]


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(help="Studies; all by default.")] = None,
    workers: Workers = 1,
) -> None:
    """Run studies and store their rows."""
    if unknown := set(names or []) - set(STUDIES):
        raise typer.BadParameter(f"no study {', '.join(sorted(unknown))}; there are: {', '.join(STUDIES)}")
    for name in names or STUDIES:
        experiment(study_arguments(name), workers, RUNS / name)
        store(RUNS / name, GENERIC / name, STUDY_FILES)


@app.command()
def tune(
    names: Annotated[list[str] | None, typer.Argument(help="Settings; all by default.")] = None,
    workers: Workers = 1,
) -> None:
    """Try settings on scenes apart from those that are reported, and store their rows."""
    if unknown := set(names or []) - set(TUNED):
        raise typer.BadParameter(f"no setting {', '.join(sorted(unknown))}; there are: {', '.join(TUNED)}")
    for name in names or TUNED:
        folder = f"tuning-{name}"
        experiment(tuning_arguments(name), workers, RUNS / folder)
        store(RUNS / folder, GENERIC / folder, STUDY_FILES)


@app.command()
def page() -> None:
    """Write the tables of the page from the stored rows."""
    save_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))


# --- the page ---------------------------------------------------------------------------------------------


def with_tables(text: str) -> str:
    """Put each table between its marks: ``<!-- study: NAME -->``, ``<!-- direction: MEASURE -->``, ..."""
    contents = {f"study: {name}": study_section(name, study_arguments(name)) for name in STUDIES}
    contents |= {
        f"study: tuning-{name}": study_section(f"tuning-{name}", tuning_arguments(name)) for name in TUNED
    }
    rows = score_direction.stored(score_direction.RESULT)
    contents |= {
        f"direction: {measure}": "\n".join(score_direction.summary(rows, measure))
        for measure in score_direction.MEASURES
    }
    ranked = score_direction.stored(score_direction.RANKING)
    contents["ranking"] = "\n".join(score_direction.ranking_summary(ranked))
    contents["training"] = training_table(STORED / "training-captioned-prior-0.jsonl")

    def section(mark: re.Match[str]) -> str:
        return f"<!-- {mark[1]} -->\n\n{contents[mark[1]]}\n\n<!-- end -->"

    names = "|".join(map(re.escape, contents))
    return re.sub(rf"<!-- ({names}) -->.*?<!-- end -->", section, text, flags=re.DOTALL)


def study_section(name: str, options: list[str]) -> str:
    """Return a study's command, preset hash and table."""
    study = stored_study(GENERIC / name)
    title, headings, cells = table(study, summarize(study, stored_rows(GENERIC / name)))
    hashes = [preset_sha256(preset)[:HASH_DIGITS] for preset in (study.base, preset_today(options))]
    note = f"Preset hash `{hashes[0]}`" + ("" if hashes[0] == hashes[1] else f"; today's is `{hashes[1]}`")
    command = f"`redepth experiment {shlex.join(options)}`"
    return f"{command}: {title.splitlines()[-1]}. {note}.\n\n{grid_of(headings, cells)}"


def training_table(log: Path) -> str:
    """Return the validation of the captioned prior: cosine of x0 by what it is told, and pictures seen."""
    rows = [row for row in json_lines(log) if "validation" in row]
    headings = ["pictures", "scenes", "told", *(f"t = {t}" for t in (300, 500, 700, 900))]
    cells = []
    for row in rows:
        for scenes, found in row["validation"].items():
            columns = [found["timesteps"].index(t) for t in (300, 500, 700, 900)]
            cells += [
                [f"{row['samples']}", scenes, told, *(f"{values['cosine'][c]:+.2f}" for c in columns)]
                for told, values in found.items()
                if told != "timesteps"
            ]
    return grid_of(headings, cells)


if __name__ == "__main__":
    app()

from __future__ import annotations

from pathlib import Path

import pytest

from redepth.checkpoints import embedded, resolve_name
from redepth.cli.checks import CHECKSUMS, embedded_weights
from redepth.errors import WeightsError
from redepth.io.assets import CHECKOUT, VARIABLE

PAIR = ("depth", "relighting-prior")
COMPARISON_FOLDER = CHECKOUT / "checkpoints"


def test_the_package_has_two_pairs_and_the_repository_the_comparison_priors() -> None:
    packaged = {path.name for path in embedded.WEIGHTS.iterdir() if path.is_dir()}
    assert packaged == {f"{domain}-{part}" for domain in ("photo", "relief") for part in PAIR}
    assert {path.name for path in COMPARISON_FOLDER.iterdir() if path.is_dir()} == set(embedded.COMPARISON)


@pytest.mark.parametrize("name", embedded.COMPARISON)
def test_a_comparison_prior_is_found_in_the_checkout_or_where_the_variable_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_name(f"embedded:{name}") == str(COMPARISON_FOLDER / name)
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert resolve_name(f"embedded:{name}") == str(tmp_path / "checkpoints" / name)


@pytest.mark.parametrize("name", embedded.COMPARISON)
def test_without_the_repository_the_error_says_where_to_get_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(
        WeightsError, match=f"^embedded:{name}: .*not of the wheel: .* clone, or set {VARIABLE}"
    ):
        resolve_name(f"embedded:{name}")


@pytest.mark.parametrize("name", ["relief-priors", ""])
def test_an_unknown_name_lists_the_valid_ones(name: str) -> None:
    with pytest.raises(WeightsError, match="relief-depth, relief-prior, relief-relighting-prior, smooth-"):
        resolve_name(f"embedded:{name}")


def test_the_comparison_priors_are_the_recorded_files() -> None:
    checks = embedded_weights(COMPARISON_FOLDER)
    assert all(check.ok for check in checks)
    files = {p.relative_to(COMPARISON_FOLDER).as_posix() for p in COMPARISON_FOLDER.rglob("*") if p.is_file()}
    listed = {check.what.removeprefix("embedded: ") for check in checks}
    assert listed == files - {CHECKSUMS, "README.md"}

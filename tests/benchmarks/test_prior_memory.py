"""The memory of the priors in docs/priors.md is that of their configurations."""

from __future__ import annotations

import pytest

from benchmarks.speed import prior_memory
from redepth import priors


def test_the_page_has_the_stored_table() -> None:
    written = prior_memory.PAGE.read_text().partition(prior_memory.BEGIN)[2].partition(prior_memory.END)[0]
    assert written.strip() == prior_memory.table(prior_memory.stored())


def test_every_prior_with_a_prompt_is_there_with_its_checkpoint() -> None:
    rows = {row.name: row for row in prior_memory.stored()}
    assert list(rows) == list(prior_memory.DENOISERS)
    names = [n for n, e in priors.REGISTRY.entries().items() if "redepth." in str(e.target)]
    # IC-Light is Stable Diffusion 1.5 with a wider first layer.
    for name in set(names) - {"ic-light", "pixel-diffusion"}:
        assert rows[name].checkpoint == priors.REGISTRY.check(name, {})["checkpoint"]


@pytest.mark.parametrize("name", ["stable-diffusion", "pixart-sigma", "prx-pixel"])
def test_the_counts_are_those_of_the_configurations(name: str) -> None:
    row = next(row for row in prior_memory.stored() if row.name == name)
    network = prior_memory.denoiser(name)
    assert row.denoiser == round(prior_memory.millions(network), 1)
    assert row.vae == round(prior_memory.vae_encoder(name), 1)
    assert row.gigabytes == prior_memory.gigabytes(network)


def test_published_sizes() -> None:
    """In millions, from the papers and model cards, and bytes of the files of PixArt-Sigma's weights."""
    rows = {row.name: row for row in prior_memory.stored()}
    published = {"stable-diffusion": 860, "stable-diffusion-xl": 2567, "z-image": 6000, "qwen-image": 20_000}
    for name, millions in published.items():
        assert rows[name].denoiser == pytest.approx(millions, rel=0.03)
    assert rows["stable-diffusion-3.5, large"].denoiser == pytest.approx(8100, rel=0.03)
    assert rows["pixart-sigma"].gigabytes["float32"] == pytest.approx(2.4435, abs=0.005)

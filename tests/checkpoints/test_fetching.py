"""Which checkpoints a component loads, what is to come of them, and the download ahead of a run."""

from __future__ import annotations

import pytest

from redepth.checkpoints import fetch, lookup, pending, sources_of, this_machine_only
from redepth.checkpoints.lookup import sources_located
from redepth.depth_models import REGISTRY as DEPTH_MODELS
from redepth.errors import NotDownloadedError
from redepth.priors import REGISTRY as PRIORS
from tests.support import hub_repositories as repos
from tests.support.hub_repositories import DEPTH, SD
from tests.support.hub_server import COMMIT, Hub


def test_the_sources_of_a_component_are_those_it_would_load() -> None:
    (source,) = sources_of(PRIORS.build("pixel-diffusion", {}))
    assert (source.checkpoint, source.is_local) == ("embedded:relief-relighting-prior", True)
    assert (pending(source).files, pending(source).bytes) == (0, 0)
    assert sources_of(object()) == []
    # A map that is missing is no checkpoint.
    assert sources_of(DEPTH_MODELS.build("precomputed", {})) == []


def test_sources_are_collected_within_the_context_alone() -> None:
    with sources_located() as outer:
        with sources_located() as inner:
            lookup.locate("embedded:relief-depth", None, ["config.json"])
        assert [source.checkpoint for source in inner] == ["embedded:relief-depth"]
        assert outer == []
    lookup.locate("embedded:relief-depth", None, ["config.json"])
    assert outer == []


def test_what_is_to_come_is_known_before_and_gone_after(online: Hub) -> None:
    # The checkpoint and its VAE are one source.
    (source,) = sources_of(PRIORS.build("stable-diffusion", {}))
    assert (source.checkpoint, source.commit) == (SD, COMMIT)
    expected = repos.sd_files()
    coming = pending(source)
    sizes = {name: (online.repositories[SD].folder / name).stat().st_size for name in expected}
    assert coming.bytes <= sum(sizes.values())
    assert coming.bytes >= max(sizes.values())
    assert online.downloaded() == {}
    fetch([coming])
    assert online.downloaded()[SD] <= expected
    (again,) = sources_of(PRIORS.build("stable-diffusion", {}))
    assert pending(again).files == 0


def test_this_machine_only_asks_the_hub_for_nothing(online: Hub) -> None:
    component = DEPTH_MODELS.build("depth-anything", {})
    with this_machine_only(), pytest.raises(NotDownloadedError, match=DEPTH):
        component.ensure_available()
    assert online.requests == []
    fetch(map(pending, sources_of(component)))
    online.forget()
    with this_machine_only():
        component.ensure_available()
    assert online.requests == []

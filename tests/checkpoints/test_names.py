"""Names resolve to embedded weights, local folders and hub ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from redepth import checkpoints
from redepth.errors import WeightsError


def test_names_resolve_to_embedded_local_and_hub_sources(tmp_path: Path) -> None:
    assert Path(checkpoints.resolve_name("embedded:relief-depth")) == checkpoints.WEIGHTS / "relief-depth"
    assert checkpoints.resolve_name(str(tmp_path)) == str(tmp_path)
    assert checkpoints.resolve_name("owner/name") == "owner/name"


@pytest.mark.parametrize("name", ["./missing", "/missing", "~/missing/there", "justaname", "a/b/c"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(name: str) -> None:
    with pytest.raises(WeightsError, match="no such folder, and not a hub id"):
        checkpoints.resolve_name(name)

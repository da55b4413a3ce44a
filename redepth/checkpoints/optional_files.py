"""Request optional files that the cache lacks because another program filled it."""

from __future__ import annotations

import functools
import logging

from redepth.checkpoints import hub_api
from redepth.checkpoints.cache import note_absent, unknown_files
from redepth.checkpoints.downloads import download
from redepth.errors import WeightsError

log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=64)
def request_optional(
    repository: str, commit: str, names: tuple[str, ...], local_files_only: bool
) -> tuple[str, ...]:
    """Download small files that a cached commit lacks, once per process.

    Returns:
        The files that remain unknown, because the hub could not be asked; a warning says so.
    """
    problem = "local_files_only is set" if local_files_only else hub_api.unreachable()
    if not problem:
        try:
            available = hub_api.listing(repository, commit).names
            note_absent(repository, commit, set(names) - available)
            download(repository, commit, commit, [name for name in names if name in available])
        except WeightsError as error:  # the required files are cached, so the run can continue
            problem = str(error)
    if not problem:
        return ()
    unknown = unknown_files(repository, commit, names)
    if unknown:
        log.warning(
            "'%s' is in the cache without %s, and the hub could not be asked (%s): defaults are used, and "
            "results may differ from those of other machines; run once where the hub can be reached",
            repository,
            ", ".join(unknown),
            problem,
        )
    return unknown

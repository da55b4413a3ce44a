"""Many photos, each in one way: check it, caption it, refine it, write its folder; by any executor.

A photo is decoded once. `check_photos` decodes it in full, because a damaged file shows only at its end, and
keeps the pixels for the refinement. Photos beyond `checking.KEPT_BYTES` are decoded again when they are
captioned and when they are refined, so that the memory does not grow with their number.
"""

from redepth.batch.checking import check_folder, check_photos
from redepth.batch.identity import why_refine
from redepth.batch.records import Decoded, Display, Photo, Refined, Settings
from redepth.batch.refining import make_worker, refine_photos, with_prompts

__all__ = [
    "Decoded",
    "Display",
    "Photo",
    "Refined",
    "Settings",
    "check_folder",
    "check_photos",
    "make_worker",
    "refine_photos",
    "why_refine",
    "with_prompts",
]

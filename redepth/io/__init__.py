"""Read photos, depth maps and masks, and write results.

Every writer is atomic: a file is whole or absent. Importing this package needs numpy and Pillow only. A
file that cannot be used raises `InputError` with one line: the file, the problem and the remedy.
"""

from redepth.io.depth_map import check_size, load_depth_map, load_disparity_png
from redepth.io.discovery import PHOTO_SUFFIXES, companions, find_photos, output_folders
from redepth.io.files import StrPath
from redepth.io.images import MAX_PIXELS
from redepth.io.mask import load_mask
from redepth.io.photo import MAX_ASPECT, MIN_SIDE, load_photo
from redepth.io.point_cloud import save_points
from redepth.io.write import (
    atomic_path,
    json_line,
    row_blocks,
    save_disparity_png,
    save_jpeg,
    save_json,
    save_npy,
    save_npz,
    save_png,
    save_text,
    to_uint8,
)

__all__ = [
    "MAX_ASPECT",
    "MAX_PIXELS",
    "MIN_SIDE",
    "PHOTO_SUFFIXES",
    "StrPath",
    "atomic_path",
    "check_size",
    "companions",
    "find_photos",
    "json_line",
    "load_depth_map",
    "load_disparity_png",
    "load_mask",
    "load_photo",
    "output_folders",
    "row_blocks",
    "save_disparity_png",
    "save_jpeg",
    "save_json",
    "save_npy",
    "save_npz",
    "save_png",
    "save_points",
    "save_text",
    "to_uint8",
]

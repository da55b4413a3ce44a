"""Read photos, depth maps and masks, and write results.

Every writer is atomic: a file is whole or absent. Importing this package needs numpy and Pillow only. A
file that cannot be used raises `InputError` with one line: the file, the problem and the remedy.
"""

from redepth.io.arrays import read_floats
from redepth.io.colmap import load_colmap_points
from redepth.io.colours import LINEAR_SUFFIXES, linear_of_array, load_linear
from redepth.io.depth_map import (
    check_aspect,
    check_size,
    load_depth_map,
    load_disparity_png,
    load_grey16,
    load_map,
)
from redepth.io.discovery import PHOTO_SUFFIXES, companions, find_photos, output_folders
from redepth.io.exif import exif_focal_length
from redepth.io.exr import save_exr
from redepth.io.files import StrPath, check_name, damaged, open_regular, reason
from redepth.io.frame_range import ALL_FRAMES, FrameRange, parse_frame_range
from redepth.io.guides import load_labels, load_normals
from redepth.io.hashing import damage, manifest, sha256_of, sha256_of_files
from redepth.io.images import image_size
from redepth.io.intrinsics import (
    INTRINSICS_SUFFIXES,
    PIXEL_CENTRES,
    Intrinsics,
    load_intrinsics,
    parse_intrinsics,
)
from redepth.io.known_points import KnownPoints, load_known_points, points_of_map, points_of_table
from redepth.io.limits import MAX_PIXELS, check_pixels, pixel_limit, with_pixel_limit
from redepth.io.mask import load_mask
from redepth.io.names import as_text, displayed, hashed_name, is_safe_name
from redepth.io.photo import MAX_ASPECT, MIN_SIDE, load_photo, photo_of_array
from redepth.io.poses import Poses, load_poses
from redepth.io.sequence import find_sequence
from redepth.io.text import read_text
from redepth.io.transaction import recover, replaced_folder
from redepth.io.video import (
    MAX_FRAMES,
    VIDEO_SUFFIXES,
    VideoFacts,
    VideoFrame,
    check_video,
    is_video,
    read_video,
)
from redepth.io.video_writing import VideoWriter, check_video_writer, video_writer
from redepth.io.write import (
    atomic_path,
    json_line,
    json_text,
    remove_leftovers,
    require_room,
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
    "ALL_FRAMES",
    "INTRINSICS_SUFFIXES",
    "LINEAR_SUFFIXES",
    "MAX_ASPECT",
    "MAX_FRAMES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "PHOTO_SUFFIXES",
    "PIXEL_CENTRES",
    "VIDEO_SUFFIXES",
    "FrameRange",
    "Intrinsics",
    "KnownPoints",
    "Poses",
    "StrPath",
    "VideoFacts",
    "VideoFrame",
    "VideoWriter",
    "as_text",
    "atomic_path",
    "check_aspect",
    "check_name",
    "check_pixels",
    "check_size",
    "check_video",
    "check_video_writer",
    "companions",
    "damage",
    "damaged",
    "displayed",
    "exif_focal_length",
    "find_photos",
    "find_sequence",
    "hashed_name",
    "image_size",
    "is_safe_name",
    "is_video",
    "json_line",
    "json_text",
    "linear_of_array",
    "load_colmap_points",
    "load_depth_map",
    "load_disparity_png",
    "load_grey16",
    "load_intrinsics",
    "load_known_points",
    "load_labels",
    "load_linear",
    "load_map",
    "load_mask",
    "load_normals",
    "load_photo",
    "load_poses",
    "manifest",
    "open_regular",
    "output_folders",
    "parse_frame_range",
    "parse_intrinsics",
    "photo_of_array",
    "pixel_limit",
    "points_of_map",
    "points_of_table",
    "read_floats",
    "read_text",
    "read_video",
    "reason",
    "recover",
    "remove_leftovers",
    "replaced_folder",
    "require_room",
    "row_blocks",
    "save_disparity_png",
    "save_exr",
    "save_jpeg",
    "save_json",
    "save_npy",
    "save_npz",
    "save_png",
    "save_text",
    "sha256_of",
    "sha256_of_files",
    "to_uint8",
    "video_writer",
    "with_pixel_limit",
]

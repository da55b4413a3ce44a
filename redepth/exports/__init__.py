"""Write a result: which files there are, what each holds, and one module per format."""

from redepth.exports.mesh import mesh_of
from redepth.exports.names import RECORD, RESULT_FILES, earlier_files
from redepth.exports.pictures import card_of, comparison_of
from redepth.exports.points import points_of
from redepth.exports.resolution import enlarge, enlarge_guided
from redepth.exports.source import Source
from redepth.exports.writing import check_packages, room, write_files

__all__ = [
    "RECORD",
    "RESULT_FILES",
    "Source",
    "card_of",
    "check_packages",
    "comparison_of",
    "earlier_files",
    "enlarge",
    "enlarge_guided",
    "mesh_of",
    "points_of",
    "room",
    "write_files",
]

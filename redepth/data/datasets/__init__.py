"""Data sets with ground-truth depth: a small reader for the official layout of each download.

Nothing is downloaded; `Dataset.check` reports missing files and where to get them.
"""

from __future__ import annotations

from redepth.data.datasets.base import Dataset, Missing, Sample
from redepth.registry import Registry

__all__ = ["REGISTRY", "Dataset", "Missing", "Sample", "register"]

REGISTRY = Registry("dataset", "redepth.datasets", Dataset)
REGISTRY.add(
    "motorcycle",
    "redepth.data.datasets.middlebury:Motorcycle",
    "one scene of Middlebury 2014, 741 x 500, from scikit-image's wheel",
    needs=(("skimage", "bench"),),
)
REGISTRY.add(
    "synthetic",
    "redepth.data.datasets.synthetic:Synthetic",
    "procedural relief scenes by seed, exact depth and normals",
)
REGISTRY.add(
    "folder",
    "redepth.data.datasets.folder:Folder",
    "your own photos with depth or disparity, paired by two patterns",
)
REGISTRY.add(
    "kitti",
    "redepth.data.datasets.kitti:Kitti",
    "KITTI raw drives with the annotated depth maps of its depth benchmark",
)
REGISTRY.add(
    "nyuv2",
    "redepth.data.datasets.nyuv2:Nyuv2",
    "NYU Depth V2, the 1449 labelled images, .mat or PNG export",
)
REGISTRY.add(
    "eth3d",
    "redepth.data.datasets.eth3d:Eth3d",
    "ETH3D, the 454 DSLR photos of the high-resolution training scenes",
)
REGISTRY.add("diode", "redepth.data.datasets.diode:Diode", "DIODE, the 771 validation images")
REGISTRY.add(
    "middlebury-2014",
    "redepth.data.datasets.middlebury:Middlebury2014",
    "Middlebury stereo 2014, 23 scenes with calibrated disparity",
)
REGISTRY.add(
    "middlebury-2021",
    "redepth.data.datasets.middlebury:Middlebury2021",
    "Middlebury stereo 2021, 24 scenes of a phone's camera with calibrated disparity",
)
REGISTRY.add("sintel", "redepth.data.datasets.sintel:Sintel", "MPI Sintel, 1064 training frames")
REGISTRY.add("co3d", "redepth.data.datasets.co3d:Co3d", "Common Objects in 3D, version 2")

register = REGISTRY.register

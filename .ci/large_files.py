"""Refuse files above 1 MB that are not listed here, so that the repository does not grow unnoticed.

python .ci/large_files.py            # all tracked files
python .ci/large_files.py FILE ...   # these, as a pre-commit hook gets them
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

LIMIT = 1_000_000
ALLOWED = {
    "redepth/checkpoints/weights/relief-depth/model.safetensors": 4_000_000,
    "redepth/checkpoints/weights/photo-depth/model.safetensors": 8_000_000,
    "redepth/checkpoints/weights/*/unet/*.safetensors": 12_000_000,
    "benchmarks/checkpoints/*/unet/*.safetensors": 12_000_000,
    "benchmarks/results/accuracy/experiments/adapt/rows.jsonl": 3_000_000,
    # 24 scenes with exact depth, normals and albedo.
    "benchmarks/data/path_traced_rooms.npz": 4_000_000,
    "docs/pictures/demo.png": 2_000_000,
    "docs/pictures/gravel.png": 3_000_000,
    "docs/pictures/path-traced.png": 2_000_000,
}
"""Pattern of a path -> the most bytes it may have."""


def limit_of(name: str) -> int:
    """Return the most bytes that a file may have."""
    return max((size for pattern, size in ALLOWED.items() if fnmatch(name, pattern)), default=LIMIT)


def too_large(names: Iterable[str], root: Path) -> Iterator[str]:
    """Yield a line for every file that is above its limit."""
    for name in names:
        path = root / name
        size = path.stat().st_size if path.is_file() else 0
        if size > limit_of(name):
            yield f"{name}: {size / 1e6:.1f} MB, above {limit_of(name) / 1e6:g} MB"


def tracked(root: Path) -> list[str]:
    """Return the names of all files that git tracks."""
    command = ["git", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return listing.rstrip("\0").split("\0")


def main() -> int:
    """Check the files named on the command line, by default all tracked ones."""
    root = Path(__file__).parents[1]
    complaints = list(too_large(sys.argv[1:] or tracked(root), root))
    if complaints:
        print(*complaints, sep="\n")
        print("Make them smaller or keep them elsewhere; exceptions are listed in .ci/large_files.py")
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())

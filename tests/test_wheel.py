"""The wheel: size, contents, and the commands in an environment with its declared dependencies alone."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from redepth.checkpoints.embedded import COMPARISON
from redepth.data.scenes.path_traced import ASSET, LARGE_ASSET
from redepth.data.scenes.path_traced_rooms import ASSET as ROOMS_ASSET
from redepth.io import save_png
from redepth.io.assets import VARIABLE
from tests.support.command import is_installed
from tests.support.helpers import photo

ROOT = Path(__file__).parents[1]
MAX_WHEEL, MAX_FILE = 32_000_000, 1_000_000
WEIGHTS = "redepth/checkpoints/weights"
HEAVY = {
    f"{WEIGHTS}/{domain}-{file}"
    for domain in ("photo", "relief")
    for file in ("depth/model.safetensors", "relighting-prior/unet/diffusion_pytorch_model.safetensors")
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="builds the wheel: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_has_the_embedded_pairs_and_nothing_else_that_is_heavy(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_WHEEL
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    assert {name for name, size in sizes.items() if size > MAX_FILE} == HEAVY
    assert {name.split("/")[0].partition("-")[0] for name in sizes} == {"redepth"}
    assert "redepth/py.typed" in sizes
    assert f"{WEIGHTS}/SHA256SUMS" in sizes


def test_the_source_distribution_is_what_builds_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="builds it: pip install hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (archive,) = tmp_path.iterdir()
    assert archive.stat().st_size <= MAX_WHEEL


def test_large_files_are_refused(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / ".ci" / "large_files.py")]
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"0" * MAX_FILE)
    large.write_bytes(b"0" * (MAX_FILE + 1))
    assert subprocess.run([*script, str(small)]).returncode == 0
    done = subprocess.run([*script, str(small), str(large)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{large}: 1.0 MB")


# --- a bare environment ---------------------------------------------------------------------------


def declared(metadata: bytes) -> list[str]:
    """Names of the distributions that the wheel needs, with those that they need in turn."""
    lines = message_from_bytes(metadata).get_all("Requires-Dist") or []
    waiting = [Requirement(line) for line in lines]
    names: list[str] = []
    while waiting:
        requirement = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name.lower() not in names:
            names.append(requirement.name.lower())
            waiting += map(Requirement, importlib.metadata.requires(requirement.name) or [])
    return names


def link(name: str, site: Path) -> None:
    """Link the files of an installed distribution into another environment's folder of packages."""
    distribution = importlib.metadata.distribution(name)
    tops = {Path(file.parts[0]) for file in distribution.files or []}
    for top in tops:
        source = Path(str(distribution.locate_file(top)))
        if source.parent.name == "site-packages" and source.exists() and not (site / top).exists():
            (site / top).symlink_to(source)


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel and its declared dependencies alone."""
    if not is_installed("pip"):
        pytest.skip("installs the wheel with pip")
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*command, "--quiet", str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        for name in declared(archive.read(metadata)):
            link(name, site)
    return folder / "bin"


def call(bare: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", VARIABLE)}
    environment |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(bare / "redepth"), *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_redepth_comes_from_the_wheel(bare: Path, tmp_path: Path) -> None:
    code = "import redepth; from importlib.util import find_spec; "
    code += "print(redepth.__file__, find_spec('h5py'), find_spec('ray'))"
    done = subprocess.run([str(bare / "python"), "-c", code], cwd=tmp_path, capture_output=True, text=True)
    file, *optional = done.stdout.split()
    assert Path(file).is_relative_to(bare.parent)
    assert optional == ["None", "None"]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "shown"), [("doctor", "embedded weights  intact"), ("list", "smoke")])
def test_a_command_works_in_a_bare_environment(bare: Path, tmp_path: Path, command: str, shown: str) -> None:
    done = call(bare, tmp_path, command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown in done.stdout


@pytest.mark.slow
def test_a_photo_is_refined_in_a_bare_environment(bare: Path, tmp_path: Path) -> None:
    save_png(tmp_path / "photo.png", (255 * photo()[0].permute(1, 2, 0)).byte().numpy())
    done = call(bare, tmp_path, "refine", "photo.png", "--preset", "smoke", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("out/**/comparison.png"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (("experiment", "prior", "--arm", "unconditional"), COMPARISON[0]),
        (("experiment", "prior", "--arm", "of another domain"), COMPARISON[1]),
        (("experiment", "shift", "--split", "path-traced"), ASSET),
        (("experiment", "shift", "--split", "path-traced", "--size", "192"), LARGE_ASSET),
        (("experiment", "shift", "--split", "path-traced-rooms"), ROOMS_ASSET),
    ],
    ids=["unconditional", "another domain", "path-traced", "path-traced, large", "path-traced rooms"],
)
def test_a_study_that_needs_the_repository_says_so(
    bare: Path, tmp_path: Path, arguments: tuple[str, ...], missing: str
) -> None:
    done = call(bare, tmp_path, *arguments, "--images", "1", "--out", "out")
    assert done.returncode == 2
    message = " ".join(done.stderr.split())
    assert missing in message
    assert "not of the wheel" in message
    assert VARIABLE in message

"""The state of a clip after a frame, as a file: the next call goes on from it as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redepth import io
from redepth.clips.chain import Chain
from redepth.clips.flow import Earlier, KnownMotion
from redepth.clips.lengths import Lengths
from redepth.errors import InputError
from redepth.ops.camera import Camera
from redepth.optim.plan import Plan
from redepth.optim.warm import WarmStart

_MAPS = ("image", "prediction", "adjustment", "reference", "answer", "count")
_LEARNED = "learned."
_EARLIER = "earlier."
_PLAN = ("members", "steps", "members_per_batch", "early_stop")


@dataclass(frozen=True, eq=False)
class ClipState:
    """What the next frame of a clip needs of the frames before.

    Attributes:
        frames: number of frames that are done.
        chain: of the last one.
        motion: None unless the camera's poses are given.
        camera: of the first frame, if all frames take it and it was estimated or read from the photo.
    """

    frames: int
    chain: Chain
    motion: KnownMotion | None = None
    camera: Camera | None = None


def room_of_maps(height: int, width: int) -> int:
    """Return how many bytes the maps of a state take: float32, three channels of the picture."""
    return 4 * (3 + len(_MAPS) - 1) * height * width


def save_state(path: Path, state: ClipState) -> None:
    """Write a state as safetensors, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors.torch import save_file

    chain, motion = state.chain, state.motion
    tensors = {name: getattr(chain, name) for name in _MAPS}
    tensors |= {_LEARNED + name: values for name, values in (chain.start.learned or {}).items()}
    plan = chain.start.plan
    content: dict[str, Any] = {
        "frames": state.frames,
        "unit": chain.unit,
        "prompt": chain.prompt,
        "warm": chain.start.learned is not None,
        "rates": chain.start.rates,
        "plan": None if plan is None else {name: getattr(plan, name) for name in _PLAN},
        "motion": None,
        "camera": None if state.camera is None else asdict(state.camera),
    }
    if motion is not None:
        content["motion"] = {
            "camera": asdict(motion.camera),
            "lengths": asdict(motion.lengths),
            "fitted": motion.fitted,
            "warned": motion.warned,
            "earlier": None if motion.earlier is None else motion.earlier.index,
        }
        if motion.earlier is not None:
            tensors |= {f"{_EARLIER}image": motion.earlier.image, f"{_EARLIER}answer": motion.earlier.answer}
    # Each of its own memory, which the format asks for.
    whole = {name: values.detach().cpu().contiguous().clone() for name, values in tensors.items()}
    with io.atomic_path(path) as temporary:
        save_file(whole, str(temporary), {"state": json.dumps(content)})


def load_state(path: Path, device: torch.device) -> ClipState:
    """Read a state.

    Args:
        path: of the file.
        device: of the run.

    Raises:
        InputError: it is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            content = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        return _state(content, tensors, device)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: the clip cannot go on from it ({io.reason(error)}); use --fresh") from None


def _state(content: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device) -> ClipState:
    learned = {
        name.removeprefix(_LEARNED): values.to(device)
        for name, values in tensors.items()
        if name.startswith(_LEARNED)
    }
    plan, motion = content["plan"], content["motion"]
    chain = Chain(
        **{name: tensors[name] for name in _MAPS},
        unit=content["unit"],
        prompt=content["prompt"],
        start=WarmStart(
            learned if content["warm"] else None,
            None if plan is None else Plan(**plan),
            content["rates"],
        ),
    )
    return ClipState(
        content["frames"],
        chain,
        None if motion is None else _motion(motion, tensors),
        None if content["camera"] is None else _camera(content["camera"]),
    )


def _motion(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> KnownMotion:
    index = content["earlier"]
    maps = [tensors[f"{_EARLIER}{name}"] for name in ("image", "answer")] if index is not None else []
    return KnownMotion(
        _camera(content["camera"]),
        Lengths(**content["lengths"]),
        content["fitted"],
        Earlier(index, *maps) if maps else None,
        content["warned"],
    )


def _camera(content: Mapping[str, Any]) -> Camera:
    camera = dict(content)
    if camera["intrinsics"] is not None:
        camera["intrinsics"] = tuple(camera["intrinsics"])
    return Camera(**camera)

"""What a component may be able to do beyond its contract; the callers look for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import Self

from redepth.ops.camera import Camera


@runtime_checkable
class HasNeeds(Protocol):
    """A component whose weights or packages may be missing; checked before anything is loaded."""

    def ensure_available(self) -> None:
        """Raise WeightsError (neither local, nor cached, nor reachable) or MissingDependencyError."""
        ...


@runtime_checkable
class NeedsDevice(Protocol):
    """A component whose options may ask for what not every device can do; checked before it is loaded."""

    def check_device(self, device: torch.device) -> None:
        """Raise ConfigError if the component cannot run on the device."""
        ...


@runtime_checkable
class FollowsPhoto(Protocol):
    """A depth model or renderer that reads another input for each photo, such as a file of the same name."""

    def next_photo(self, source: Path | None) -> None:
        """Set the file of the next photo; None if it has no file. Raises InputError."""
        ...


@runtime_checkable
class GoesAround(Protocol):
    """A depth model that reads a map of the photo, and extends it as a panorama is extended."""

    def go_around(self, margin: float) -> None:
        """Extend the next photo's map by this share of its width on either side; 0: not at all."""
        ...


@runtime_checkable
class LeavesHoles(Protocol):
    """A depth model whose map has holes, which it fills so that the optimisation can run."""

    @property
    def holes(self) -> Tensor | None:
        """The pixels of the last prediction that were filled, (1,1,h,w) bool, any size; None: no pixel."""
        ...


@runtime_checkable
class TakesMap(Protocol):
    """A depth model that returns a finished map in place of a prediction."""

    def take_map(self, values: NDArray[Any] | None) -> None:
        """Set the next photo's map, (h, w) of its aspect ratio; None: the model finds it by its options.

        Raises InputError.
        """
        ...


@runtime_checkable
class PredictsCamera(Protocol):
    """A depth model that estimates the camera of a photo."""

    @property
    def predicted_camera(self) -> Camera | None:
        """The camera of the last photo that was encoded; None if the checkpoint does not estimate it."""
        ...


@runtime_checkable
class FollowsCamera(Protocol):
    """A depth model whose metres depend on the camera of the photo."""

    def next_camera(self, camera: Camera | None) -> None:
        """Set the camera of the photo that is encoded next; None: it is not known."""
        ...


@runtime_checkable
class UsesCamera(Protocol):
    """A renderer that sees the surface through a camera."""

    @property
    def own_camera(self) -> Camera:
        """The camera of its options."""
        ...

    def look_through(self, camera: Camera) -> None:
        """Use this camera for the next photo."""
        ...


@runtime_checkable
class LightsAlbedo(Protocol):
    """A renderer that may light another albedo than the photo's colours, which it finds for each photo.

    ``albedo`` is the option that says which: an `AlbedoName`, or where files of albedos are.
    """

    albedo: str

    def load(self, device: torch.device) -> Self:
        """Load what estimates the albedo, if anything does. Raises WeightsError."""
        ...

    def check_albedo(self, source: Path | None, height: int, width: int, photos: int = 1) -> None:
        """Read the file of a photo's albedo, if it is in one, and check that it fits, before any work.

        Args:
            source: the photo's file; None if it has no file.
            height: of the photo.
            width: of the photo.
            photos: how many photos are refined.

        Raises:
            InputError: there is no such file, it cannot be read, or it does not fit.
        """
        ...

    def take_albedo(self, values: NDArray[Any] | None) -> None:
        """Set the next photo's albedo, (h, w, 3); None: the renderer finds it by its options.

        Raises InputError.
        """
        ...

    def find_albedo(self, photo: Tensor, image: Tensor, margin: float, seed: int) -> Tensor | None:
        """Find a photo's albedo, and light it from now on.

        Args:
            photo: (1,3,h,w) sRGB in [0, 1], any size.
            image: (1,3,H,W) the same at network size, on the device of the run.
            margin: the share of its width by which a panorama goes on beyond one turn on either side.
            seed: of what is random in an estimate.

        Returns:
            (1,3,H,W) linear colours in [0, 1]; None: the photo's own colours.

        Raises:
            InputError: the albedo cannot be read or does not fit.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return the entries of the run record: where the albedo is from, with its hash or checkpoint."""
        ...


@runtime_checkable
class LearnsByMember(Protocol):
    """A prior that learns while members are refined, separately for each member."""

    def begin(self, members: Sequence[int]) -> None:
        """Start these members with nothing learned. Rows of later calls are theirs, in this order."""
        ...


@dataclass(frozen=True)
class Execution:
    """How networks are executed; `config.Performance` documents each field."""

    channels_last: bool = True
    compile: bool = False
    cuda_graphs: bool = False
    checkpointing: bool = False
    fused_kernels: bool = False
    explicit_attention: bool = False
    shared_prefix: bool = False
    decoders: Literal["auto", "loop", "batched"] = "auto"


@runtime_checkable
class BatchesDecoders(Protocol):
    """A depth model that can decode each row of its features with its own decoder weights, in one call.

    If ``batches_decoders`` is true, the ``parameters`` of `DepthModel.decode` may have a leading batch
    axis, (B, ...) each: row i is decoded with weights i.
    """

    batches_decoders: bool


@runtime_checkable
class Tunable(Protocol):
    """A component whose networks can be executed in several ways, with the same mathematics."""

    def tune(self, how: Execution) -> None:
        """Execute the networks in this way from now on. Raises ConfigError."""
        ...


@runtime_checkable
class HoldsMemory(Protocol):
    """A component that keeps device memory between steps, for each batch size so far."""

    def release_memory(self) -> None:
        """Free that memory, such as captured graphs; the next step allocates what it needs."""
        ...


@runtime_checkable
class Upcasts(Protocol):
    """A prior that may run in half precision and can switch to float32."""

    def upcast(self) -> str:
        """Switch to float32; return the previous precision, empty if nothing changed."""
        ...


@runtime_checkable
class HasBackends(Protocol):
    """A component with several backends, some of which may not run on this machine."""

    @staticmethod
    def backends() -> dict[str, str]:
        """Return each backend and what to do before it can run here; empty if it can run."""
        ...


@runtime_checkable
class Adaptable(Protocol):
    """A depth model whose weights can be trained, and saved as a checkpoint of its library."""

    def network(self) -> nn.Module:
        """Return a module of all parameters that `DepthModel.encode` and `DepthModel.decode` use.

        Layers inside it may be replaced, as by low-rank adapters: the next prediction uses the new ones.
        """
        ...

    def save_checkpoint(self, folder: Path) -> None:
        """Write the weights as they are, with their configuration, to an empty folder.

        ``depth_model.checkpoint`` of the same component takes the folder. Raises OutputError.
        """
        ...

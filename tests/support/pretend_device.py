"""A pretended GPU on a CPU, which raises the errors that a GPU would.

Inside `PretendedGPU`, tensors that are sent to or made on CUDA stay in the CPU's memory. Their storages are
marked as being on the GPU, and ``tensor.device`` returns that. Operators compute as on a CPU. Errors are
operators that mix memory, numpy, and a random generator of the host. Inside a `step`, errors are also
operations for which the host would wait for the GPU: reading a value or a shape that depends on values,
copies to the host, copies from the host other than from pinned memory without blocking, and numbers sent as
tensors.

Python's functions for devices are patched; a dispatch mode sees all operators. Tensors that torch's C++ code
makes inside an operator have no device yet ("undecided"): they match tensors on either side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from redepth.ops import constants
from redepth.ops.triton import kernels

GPU = torch.device("cuda", 0)

_READS = {
    "_local_scalar_dense",
    "_linalg_check_errors",
    "_unique",
    "_unique2",
    "allclose",
    "argwhere",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
"""Operators whose result, or its shape, the host reads."""

_INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}

_MAKE = (
    "arange",
    "asarray",
    "as_tensor",
    "bartlett_window",
    "blackman_window",
    "empty",
    "empty_permuted",
    "empty_strided",
    "eye",
    "from_file",
    "from_numpy",
    "full",
    "hamming_window",
    "hann_window",
    "kaiser_window",
    "linspace",
    "logspace",
    "normal",
    "ones",
    "rand",
    "randint",
    "randn",
    "randperm",
    "range",
    "scalar_tensor",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
)
_LIKE = ("zeros", "ones", "empty", "full", "rand", "randn", "randint")
_NEW = ("new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided", "new_tensor")
_OF_NUMBERS = {"tensor", "as_tensor", "asarray", "new_tensor"}


class Refused(RuntimeError):
    """An operation that raises an error on a real GPU."""


class Waited(RuntimeError):
    """An operation inside a step that makes the host wait for the GPU."""


class _Places:
    """Places of storages: the GPU, pinned memory, or undecided; a storage without entry is the host's."""

    def __init__(self) -> None:
        # A weak reference prevents reuse of the address.
        self._known: dict[int, tuple[str, StorageWeakRef]] = {}
        self._limit = 4096

    def __getitem__(self, tensor: Tensor) -> str:
        try:
            address = tensor.untyped_storage()._cdata
        except (NotImplementedError, RuntimeError):  # no storage, such as a sparse tensor's
            return "host"
        return self._known[address][0] if address in self._known else "host"

    def __setitem__(self, tensor: Tensor, place: str) -> None:
        storage = tensor.untyped_storage()
        if place == "host":
            self._known.pop(storage._cdata, None)
            return
        if len(self._known) > self._limit:
            self._known = {k: v for k, v in self._known.items() if not v[1].expired()}
            self._limit = 4096 + 2 * len(self._known)
        self._known[storage._cdata] = (place, StorageWeakRef(storage))


class PretendedGPU(TorchDispatchMode):
    """A context in which models are loaded and run on the device `GPU`."""

    def __init__(self) -> None:
        super().__init__()
        self._places = _Places()
        self._stepping = False
        self._making = 0
        self._patches = ExitStack()

    def __enter__(self) -> Any:
        # `with torch.device(...)` keeps the functions that exist at the first call: call it before patching.
        _device_constructors()
        constants._made.cache_clear()
        for owner, name, replacement in self._replacements():
            self._patches.enter_context(mock.patch.object(owner, name, replacement))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()
        # The cache holds constants that are only marked as being on a GPU.
        constants._made.cache_clear()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Raise `Waited` for any wait for the GPU inside the context."""
        self._stepping = True
        try:
            yield
        finally:
            self._stepping = False

    def holds(self, tensor: Tensor) -> bool:
        """Return whether a tensor is on the GPU."""
        return self._places[tensor] == "gpu"

    def _waits(self, why: str) -> None:
        if self._stepping:
            raise Waited(f"the host waits for the GPU: {why}")

    # --- operators ----------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        places = {self._places[t] for t in inputs}
        if "gpu" in places:
            self._check(func, args, kwargs, inputs)
        result = func(*args, **kwargs)
        if func.__name__.startswith("copy_"):
            return result
        if "gpu" in places:
            place = "gpu"
        elif places <= {"undecided"} and not self._making:
            place = "undecided"
        elif func.__name__.startswith("lift_fresh") and not self._making and inputs[0].dim() == 0:
            place = "undecided"  # a number, written into a tensor
        else:
            return result
        for made in tree_leaves(result):
            if isinstance(made, Tensor) and self._places[made] == "host":
                self._places[made] = place
        return result

    def _check(self, func: Any, args: Any, kwargs: Any, inputs: list[Tensor]) -> None:
        name = func.__name__.split(".")[0]
        host = [t for t in inputs if self._places[t] in ("host", "pinned")]
        if name == "copy_":
            if host:
                self._check_copy(args[0], args[1], bool(kwargs.get("non_blocking") or (*args, 0, 0)[2]))
            return
        if name in _READS:
            self._waits(name)
        if name == "repeat_interleave" and inputs and kwargs.get("output_size") is None:
            self._waits(name)
        if name in _INDEXES:
            if not self.holds(args[0]):
                raise Refused(f"{name}: a tensor of the host is indexed by one of the GPU")
            indices = [i for i in args[1] if i is not None]
            if any(i.dtype in (torch.bool, torch.uint8) for i in indices):
                self._waits(f"{name} by a mask")
            # Indices and single values may be the host's: torch copies them, from pageable memory.
            host = [t for t in host if not (any(t is i for i in indices) or t.dim() == 0)]
            if any(self._places[i] != "gpu" and self._places[i] != "undecided" for i in indices):
                self._waits(f"{name} by indices of the host")
        spread = torch.Tag.pointwise in func.tags or name.startswith(("_foreach", "_fused"))
        written = func._schema.is_mutable and any(t is args[0] for t in host)
        if written or any(t.dim() or not spread for t in host):
            shapes = [(tuple(t.shape), self._places[t]) for t in inputs]
            raise Refused(f"{func}: tensors of the host and of the GPU in one operator: {shapes}")

    def _check_copy(self, to: Tensor, values: Tensor, non_blocking: bool) -> None:
        if not self.holds(to):
            return self._waits("a copy to the host")
        if self._places[values] == "host" or not non_blocking:
            self._waits(
                f"a copy of {tuple(values.shape)} from the host's "
                f"{'pageable' if self._places[values] == 'host' else 'pinned'} memory"
                f"{'' if non_blocking else ', blocking'}"
            )
        return None

    # --- Python's ways to a device ------------------------------------------------------------

    def _replacements(self) -> Iterator[tuple[Any, str, Any]]:
        # In Triton's interpreter kernels would take minutes: the torch implementations run instead.
        yield kernels, "TRITON_PROBLEM", "a pretended GPU has none"
        base = torch._C.TensorBase
        for name, on_gpu in (("is_cuda", True), ("is_cpu", False)):
            yield Tensor, name, self._said(getattr(base, name), on_gpu)
        yield Tensor, "device", self._said(base.device, GPU)
        yield Tensor, "get_device", lambda t: 0 if self.holds(t) else -1
        yield Tensor, "to", lambda t, *args, **options: self._to(t, *args, **options)
        yield (
            Tensor,
            "cuda",
            lambda t, device=None, non_blocking=False, **o: self._to(t, GPU, non_blocking=non_blocking, **o),
        )
        yield Tensor, "cpu", lambda t, **options: self._to(t, "cpu", **options)
        yield Tensor, "pin_memory", lambda t, device=None: self._pinned(t)
        yield Tensor, "is_pinned", lambda t, device=None: self._places[t] == "pinned"
        yield Tensor, "tolist", self._reads_all(base.tolist)
        for name in ("numpy", "__array__"):
            yield Tensor, name, self._refuses(getattr(Tensor, name))
        for name in (*_MAKE, *(f"{kind}_like" for kind in _LIKE)):
            yield torch, name, self._placed(getattr(torch, name), name)
        for name in _NEW:
            yield Tensor, name, self._placed(getattr(base, name), name)
        # The only GPU is always the current one.
        yield torch.cuda, "device", lambda _: nullcontext()
        yield torch.cuda, "device_of", lambda _: nullcontext()
        yield torch.cuda, "current_device", lambda: GPU.index
        grouped = torch.optim.Optimizer._group_tensors_by_device_and_dtype
        yield (
            torch.optim.Optimizer,
            "_group_tensors_by_device_and_dtype",
            staticmethod(
                lambda lists, with_indices=False: {
                    (GPU if self.holds(group[0][0][0]) else device, dtype): group
                    for (device, dtype), group in grouped(lists, with_indices).items()
                }
            ),
        )

    def _said(self, plain: Any, on_gpu: Any) -> property:
        return property(lambda t: on_gpu if self.holds(t) else plain.__get__(t))

    def _reads_all(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def read(tensor: Tensor) -> Any:
            if self.holds(tensor):
                self._waits("tolist")
            return plain(tensor)

        return read

    def _refuses(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def convert(tensor: Tensor, *args: Any, **options: Any) -> Any:
            if self.holds(tensor):
                raise Refused("can't convert a tensor of the GPU to numpy; use Tensor.cpu()")
            return plain(tensor, *args, **options)

        return convert

    def _to(self, tensor: Tensor, *args: Any, copy: bool = False, **options: Any) -> Tensor:
        """Replace `Tensor.to`."""
        to = torch._C.TensorBase.to
        target = options.pop("other", args[0] if args else None)
        if isinstance(target, Tensor):
            device, dtype = target.device, target.dtype
            non_blocking, layout = options.get("non_blocking", False), options.get("memory_format")
        else:
            device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **options)
        here = self._places[tensor]
        there = here if device is None else "gpu" if device.type == "cuda" else device.type
        there = "host" if there == "cpu" else there
        plain: dict[str, Any] = {"dtype": dtype or tensor.dtype}
        if layout is not None:
            plain["memory_format"] = layout
        if there not in ("gpu", "host"):
            return (
                to(tensor, device, copy=copy, **plain)
                if device is not None
                else to(tensor, copy=copy, **plain)
            )
        if here == there or (there == "host" and here in ("pinned", "undecided")):
            return to(tensor, copy=copy, **plain)
        if here == "undecided":
            self._places[tensor] = "gpu"
            return to(tensor, copy=copy, **plain)
        if there == "host":
            self._waits("a copy to the host")
        else:
            self._check_arrival(tensor, non_blocking)
        moved = to(tensor, copy=True, **plain)
        self._places[moved] = there
        return moved

    def _check_arrival(self, tensor: Tensor, non_blocking: bool) -> None:
        if self._places[tensor] != "pinned" or not non_blocking:
            kind = "pinned memory, blocking" if self._places[tensor] == "pinned" else "pageable memory"
            self._waits(f"a copy of {tuple(tensor.shape)} from the host's {kind}")

    def _pinned(self, tensor: Tensor) -> Tensor:
        if self.holds(tensor):
            raise Refused("cannot pin a tensor of the GPU")
        pinned = tensor.clone()
        self._places[pinned] = "pinned"
        return pinned

    def _placed(self, make: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
        """Replace a function that makes tensors by one that marks them with their place."""

        def made(*args: Any, **options: Any) -> Tensor:
            where = options.get("device")
            where = torch.device(where) if isinstance(where, str) else where
            source = args[0] if args and isinstance(args[0], Tensor) else None
            if name in ("as_tensor", "asarray") and source is not None:
                dtype = options.get("dtype")
                return self._to(source, where, dtype) if where or dtype else source
            like = source is not None and (name.endswith("_like") or name in _NEW)
            on_gpu = where.type == "cuda" if where is not None else like and self.holds(args[0])
            if on_gpu:
                options = {**options, "device": "cpu"}
                if name in _OF_NUMBERS:
                    self._waits(f"numbers are sent to it by {name}")
                if (generator := options.get("generator")) is not None and generator.device.type == "cpu":
                    raise Refused(f"{name}: a random generator of the host for a tensor of the GPU")
            self._making += 1
            try:
                result = make(*args, **options)
            finally:
                self._making -= 1
            if where is None or where.type in ("cpu", "cuda"):
                self._places[result] = "gpu" if on_gpu else "host"
            return result

        return made

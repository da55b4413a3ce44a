"""Prompts that describe a photo to a prior: written by the user, or captions of a model."""

from __future__ import annotations

import gc
import importlib.util
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from redepth import checkpoints
from redepth.config import CaptionFallback, CaptionPrecision
from redepth.errors import MissingDependencyError, WeightsError
from redepth.io import to_uint8
from redepth.literals import CaptionerName
from redepth.priors import cache
from redepth.priors.scores import Branch
from redepth.registry import require
from redepth.runtime.device import free_cached

log = logging.getLogger(__name__)

MAX_TOKENS = 30
"""Most tokens of a caption; it is written greedily, so that a photo has one."""


@dataclass(frozen=True)
class Prompt:
    """The description of a photo that a prior is conditioned on.

    Attributes:
        text: the prompt.
        origin: its source, for the run record: ``from`` is ``user``, ``none`` or a captioner's name.
    """

    text: str = ""
    origin: Mapping[str, Any] = field(default_factory=lambda: {"from": "user"})


@dataclass(frozen=True)
class Known:
    """A named captioner: its default weights, and the classes that load them."""

    checkpoint: str
    revision: str | None
    model: str
    processor: str
    vocabulary: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are loaded."""
        names = ("config.json", "preprocessor_config.json", "tokenizer_config.json", *self.vocabulary)
        return (*names, "model.safetensors")


CAPTIONERS: dict[CaptionerName, Known] = {
    "blip2": Known(
        "Salesforce/blip2-opt-2.7b",
        None,
        "Blip2ForConditionalGeneration",
        "Blip2Processor",
        ("vocab.json", "merges.txt"),
    ),
    # Its main branch has only pickles; this commit is the hub's own conversion of them to safetensors.
    "blip": Known(
        "Salesforce/blip-image-captioning-base",
        "9cfcdbcaccbcadb2b53b36d4b50042c4eeaa0c25",
        "BlipForConditionalGeneration",
        "BlipProcessor",
        ("vocab.txt",),
    ),
}
"""BLIP-2 (arXiv 2301.12597) is the paper's; BLIP (arXiv 2201.12086) is fifteen times smaller."""


class Captioner:
    """Writes a caption for each photo; in memory only while it writes.

    Captions are cached under the SHA-256 of the photo's pixels and of the captioner. They are data and never
    part of a path.

    Args:
        name: ``blip2`` or ``blip``.
        device: where it runs.
        checkpoint: hub id or local folder of another one of that kind.
        revision: commit, tag or branch of the hub repository.
        local_files_only: never contact the hub.
        dtype: ``auto`` is, for ``blip2``, int8 on CUDA where bitsandbytes and accelerate are installed,
            otherwise float16 on CUDA and bfloat16 elsewhere; for ``blip`` float32.
        fallback: without the captioner: ``error``, or ``none``, which continues with an empty prompt.
    """

    def __init__(
        self,
        name: CaptionerName,
        device: torch.device,
        *,
        checkpoint: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        dtype: CaptionPrecision = "auto",
        fallback: CaptionFallback = "error",
    ) -> None:
        self.name, self.device = name, device
        self.known = CAPTIONERS[name]
        self.checkpoint = checkpoint or self.known.checkpoint
        self.revision = revision if checkpoint or revision else self.known.revision
        self.local_files_only = local_files_only
        self.dtype = self._chosen(dtype)
        self.fallback = fallback
        self.problem = ""
        """Reason why there are no captions; empty without a problem."""
        self._loaded: tuple[Any, Any] | None = None

    def ensure_available(self) -> None:
        """Check that the captioner can be loaded.

        Raises:
            WeightsError: under ``fallback`` ``error``: missing, unreachable or pickled.
            MissingDependencyError: under ``fallback`` ``error``: a package is not installed.
        """
        with self._falling_back():
            self._locate()

    def captions(self, photos: Iterable[NDArray[np.float32]]) -> list[Prompt]:
        """Caption photos (H, W, 3) sRGB in [0, 1], one after the other.

        Raises:
            WeightsError: as `ensure_available` does, or the weights are corrupted or of another class.
            MissingDependencyError: as `ensure_available` does.
        """
        try:
            return [self._prompt(photo) for photo in photos]
        finally:
            self._free()

    def _prompt(self, photo: NDArray[np.float32]) -> Prompt:
        if not self.problem:
            with self._falling_back():
                return self._caption(to_uint8(photo), self._locate())
        return Prompt("", {"from": "none", "because": self.problem})

    @contextmanager
    def _falling_back(self) -> Iterator[None]:
        """Add to the error what to do without captions, or continue without them."""
        try:
            yield
        except (WeightsError, MissingDependencyError) as error:
            said = f"no captions by {self.name}: {error}"
            if self.fallback == "error":
                raise type(error)(
                    f"{said}; or give the prompt yourself (--prompt), do without (--caption none), or set "
                    "prompt.fallback=none"
                ) from error
            self.problem = said
            log.warning("%s; going on with an empty prompt", said)

    def _caption(self, pixels: NDArray[np.uint8], source: checkpoints.Source) -> Prompt:
        identity = source.identity(self.known.files)
        pixel_hash = cache.digest(pixels.tobytes())
        made_from = (self.name, identity, self.dtype, MAX_TOKENS, list(pixels.shape), pixel_hash)
        text = cache.load_text("captions", made_from)
        if cached := text is not None:
            log.debug("caption from the cache: %s", cache.key(*made_from))
        else:
            text = self._write(pixels, source)
            cache.save_text("captions", made_from, text)
        origin = {"from": self.name, **source.describe(), "dtype": self.dtype, "cached": cached}
        return Prompt(text or "", origin)

    @torch.no_grad()
    def _write(self, pixels: NDArray[np.uint8], source: checkpoints.Source) -> str:
        from PIL import Image

        model, processor = self._load(source)
        inputs = processor(images=Image.fromarray(pixels), return_tensors="pt")
        picture = inputs["pixel_values"].to(self.device, model.dtype)
        tokens = model.generate(pixel_values=picture, max_new_tokens=MAX_TOKENS, do_sample=False, num_beams=1)
        return " ".join(processor.batch_decode(tokens, skip_special_tokens=True)[0].split())

    def _load(self, source: checkpoints.Source) -> tuple[Any, Any]:
        if self._loaded is None:
            import transformers

            processor = source.load(getattr(transformers, self.known.processor), None)
            cls = getattr(transformers, self.known.model)
            if self.dtype == "int8":
                eight = transformers.BitsAndBytesConfig(load_in_8bit=True)
                half = {"dtype": torch.float16, "quantization_config": eight}
                model = source.model(cls, None, device_map={"": self.device}, **half)
            else:
                model = source.model(cls, None, dtype=getattr(torch, self.dtype)).to(self.device)
            self._loaded = model.eval().requires_grad_(False), processor
        return self._loaded

    def _free(self) -> None:
        if self._loaded is not None:
            self._loaded = None
            gc.collect()
            free_cached(self.device)

    def _locate(self) -> checkpoints.Source:
        if self.dtype == "int8":
            for package in ("bitsandbytes", "accelerate"):
                require(package, "int8")
        offline = self.local_files_only
        return checkpoints.locate(
            self.checkpoint,
            self.revision,
            self.known.files,
            optional=["generation_config.json"],
            local_files_only=offline,
        )

    def _chosen(self, dtype: CaptionPrecision) -> str:
        if dtype != "auto":
            return dtype
        if self.name == "blip":
            return "float32"
        if self.device.type != "cuda":
            return "bfloat16"
        found = all(importlib.util.find_spec(package) for package in ("bitsandbytes", "accelerate"))
        return "int8" if found else "float16"


def branch_prompts(
    prompt: str,
    needed: Collection[Branch],
    *,
    artefacts: str,
    negative: str = "",
    negative_prompt: str = "",
    source_prompt: str = "",
) -> dict[Branch, str]:
    """Return the prompt of each branch that a score rule needs.

    Args:
        prompt: of the photo.
        needed: the branches.
        artefacts: flaws of the unrefined picture, appended to the prompt.
        negative: of the branch ``negative`` if ``negative_prompt`` is empty; itself empty: the artefacts.
        negative_prompt: of the unconditional prediction; where the rule has a branch ``negative``, of that.
        source_prompt: description of the photo; empty: the prompt.
    """
    prompts = {
        "text": prompt,
        "uncond": "" if "negative" in needed else negative_prompt,
        "negative": negative_prompt or negative or artefacts,
        "source": source_prompt or prompt,
        "artefacts": ", ".join(part for part in (prompt, artefacts) if part),
    }
    return {name: text for name, text in prompts.items() if name in needed}

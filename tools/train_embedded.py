"""Train the embedded pair from scratch on procedural scenes: resumable, seeded, one command.

    python tools/train_embedded.py all            # everything below, one after the other
    python tools/train_embedded.py depth          # the depth model, narrow domain
    python tools/train_embedded.py prior          # the re-lighting prior, broad domain
    python tools/train_embedded.py export         # half-precision safetensors to redepth/weights

Each writes checkpoints and a log of its losses (JSON lines) to ``runs/<name>``; started again it goes
on from the last checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Generator, Tensor, nn

from redepth.contracts import Illumination
from redepth.data.synthetic import Scenes, scenes
from redepth.depth_models.depth_anything import DepthAnything
from redepth.doctor import CHECKSUMS, sha256
from redepth.ops.color import srgb_to_linear
from redepth.ops.geometry import normals_from_depth, relative_depth
from redepth.priors.pixel_unet import (
    LIGHT_CHANNELS,
    Layout,
    PixelUNet,
    condition_rows,
    light_vector,
)
from redepth.renderers.blinn_phong import BlinnPhong

app = typer.Typer(add_completion=False, help=__doc__)

SIZE = 96
WEIGHTS = Path(__file__).parents[1] / "redepth" / "weights"
DEPTH_NAME, PRIOR_NAME = "relief-depth", "relief-relighting-prior"
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build_depth_model(seed: int) -> Any:
    """Return a small ``DepthAnythingForDepthEstimation`` with fresh weights."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(seed)  # transformers initialises from the global generator
    backbone = Dinov2Config(
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        mlp_ratio=4,
        image_size=SIZE,
        patch_size=8,
        out_indices=[2, 3, 5, 6],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=8,
        reassemble_hidden_size=128,
        neck_hidden_sizes=[32, 48, 64, 96],
        fusion_hidden_size=32,
        head_hidden_size=32,
    )
    model = DepthAnythingForDepthEstimation(config)
    # The disparity of a flat scene: from a bias near 0 the final ReLU dies.
    nn.init.constant_(model.head.conv3.bias, 6.9)
    return model


def build_prior(seed: int) -> PixelUNet:
    """Return the re-lighting UNet with fresh weights."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)  # diffusers initialises from the global generator
    patch = 4
    unet = UNet2DConditionModel(
        sample_size=SIZE // patch,
        in_channels=2 * 3 * patch**2,
        out_channels=3 * patch**2,
        block_out_channels=(64, 112, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2D",
        norm_num_groups=16,
        attention_head_dim=32,
        cross_attention_dim=8,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="projection",
        projection_class_embeddings_input_dim=LIGHT_CHANNELS,
    )
    return PixelUNet(unet, Layout(size=SIZE, patch=patch, relighting=True))


def depth_loss(disparity: Tensor, batch: Scenes) -> Tensor:
    """L1 + scale-and-shift-invariant + gradient + normal losses, each of order one."""
    target = batch.disparity
    error = disparity - target
    spread = target.std(dim=(1, 2, 3), keepdim=True)
    centred = error - error.mean(dim=(2, 3), keepdim=True)
    gradient = sum(torch.diff(error, dim=d).abs().mean() for d in (-1, -2))
    n = normals_from_depth(relative_depth(disparity.clamp(min=0.05)))
    normal = 1 - (n * normals_from_depth(batch.depth)).sum(dim=1)
    return 0.3 * error.abs().mean() + (centred / spread).abs().mean() + 2 * gradient + 4 * normal.mean()


def depth_steps(model: Any, generator: Generator, batch: int, device: torch.device) -> Callable[[], Tensor]:
    """Return a function that computes the loss of the next batch."""
    depth_model = DepthAnything()
    depth_model.use(model, device)

    def step() -> Tensor:
        # Photos have all shapes: one batch in five is wider and larger than the square ones.
        large = float(torch.rand((), generator=generator)) < 0.2
        shape, count = ((128, 160), batch // 2) if large else ((SIZE, SIZE), batch)
        if large and float(torch.rand((), generator=generator)) < 0.5:
            shape = (shape[1], shape[0])
        drawn = with_mirrored(scenes(count // 2, "mid", generator, height=shape[0], width=shape[1]))
        drawn = drawn.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            features = depth_model.encode(drawn.image)
        # The decoder stays in float32: 8 bits of mantissa would quantise the normals.
        features = features.with_maps([w.float() for w in features.maps])
        return depth_loss(depth_model.decode(features), drawn)

    return step


def with_mirrored(batch: Scenes) -> Scenes:
    """Add each scene mirrored left to right; lights stay in the upper half plane."""
    flip: Callable[[Tensor], Tensor] = lambda x: torch.cat([x, x.flip(-1)])  # noqa: E731
    return Scenes(flip(batch.image), flip(batch.depth))


def draw_timesteps(count: int, generator: Generator) -> Tensor:
    """Mostly high noise: at low noise the network only copies its input."""
    low = torch.where(torch.rand(count, generator=generator) < 0.85, 400.0, 20.0)
    u = torch.rand(count, generator=generator)
    return (low + u * (1000.0 - low)).long().clamp(max=999)


@dataclass
class PriorBatch:
    """What one training step of the prior sees, all (N, ...)."""

    clean: Tensor
    noisy: Tensor
    target: Tensor
    timestep: Tensor
    photo: Tensor
    light: Tensor

    def to(self, device: torch.device) -> PriorBatch:
        """Return a copy on the device."""
        return PriorBatch(**{k: v.to(device) for k, v in vars(self).items()})


def prior_batch(drawn: Scenes, generator: Generator, alphas: Tensor) -> PriorBatch:
    """Re-light true geometry, add noise, drop conditions at random; the target is v."""
    count = len(drawn.image)
    light = BlinnPhong().sample(count, generator)
    relit = BlinnPhong()(drawn.depth, srgb_to_linear(drawn.image), light)[:, 0]
    clean, photo = relit * 2 - 1, drawn.image * 2 - 1
    timestep = draw_timesteps(count, generator)
    noise = torch.randn(clean.shape, generator=generator)
    alpha = alphas[timestep].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    target = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    chance = torch.rand(count, generator=generator)
    tell_photo, tell_light = (chance < 0.9).float(), (chance < 0.7).float()
    vector = light_vector(Illumination({k: v[:, 0] for k, v in light.tensors.items()}))
    photo, vector = condition_rows(photo, vector, tell_photo, tell_light)
    return PriorBatch(clean, noisy, target, timestep, photo, vector)


def prior_steps(
    model: PixelUNet, generator: Generator, batch: int, device: torch.device
) -> Callable[[], Tensor]:
    """Return a function that computes the loss of the next batch."""
    alphas = noise_schedule()

    def step() -> Tensor:
        drawn = with_mirrored(scenes(batch // 2, "broad", generator, height=SIZE, width=SIZE))
        b = prior_batch(drawn, generator, alphas).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            prediction = model(b.noisy, b.timestep, b.photo, b.light)
        return F.mse_loss(prediction.float(), b.target)

    return step


def noise_schedule() -> Tensor:
    """Return the cumulative alphas (1000,) of Stable Diffusion's schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(**SCHEDULE).alphas_cumprod


class Training:
    """The loop: AdamW with warm-up and cosine decay, an exponential moving average, checkpoints."""

    def __init__(self, model: nn.Module, folder: Path, *, rate: float, samples: int, batch: int) -> None:
        # Convolutions of few channels run about twice as fast on the CPU in this layout.
        self.model = model.to(memory_format=torch.channels_last)
        self.folder, self.log = folder, folder / "log.jsonl"
        self.samples, self.batch = samples, batch
        self.total = samples // batch
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
        schedule = lambda i: min((i + 1) / 200, 1) * (0.02 + 0.98 * cosine(i / self.total))  # noqa: E731
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule)
        self.generator = torch.Generator()
        self.step = 0

    def run(self, make_step: Callable[[Generator], Callable[[], Tensor]], seed: int) -> None:
        """Train to the end, from the last checkpoint if there is one."""
        self.generator.manual_seed(seed)
        self._resume()
        step = make_step(self.generator)
        losses: list[float] = []
        started = time.time()
        for _ in track(self.step, self.total):
            loss = step()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.scheduler.step()
            self.step += 1
            self._update_average()
            losses.append(loss.item())
            if self.step % 100 == 0 or self.step == self.total:
                self._log(sum(losses) / len(losses), time.time() - started)
                losses.clear()
            if self.step % 500 == 0 or self.step == self.total:
                self.save()

    def _update_average(self) -> None:
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value.detach(), 1 - decay)

    def _log(self, loss: float, seconds: float) -> None:
        row = {
            "step": self.step,
            "samples": self.step * self.batch,
            "loss": loss,
            "seconds": seconds,
        }
        with self.log.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def save(self) -> None:
        """Write a checkpoint, atomically."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
        }
        partial = self.folder / "state.pt.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / "state.pt")

    def _resume(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "state.pt").is_file():
            return
        state = torch.load(self.folder / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"])
        self.step = state["step"]
        # Rows after the checkpoint belong to steps that are now taken again.
        rows = self.log.read_text().splitlines(keepends=True) if self.log.is_file() else []
        kept = [row for row in rows if json.loads(row)["step"] <= self.step]
        self.log.write_text("".join(kept))


def cosine(progress: float) -> float:
    """Return the half cosine that falls from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def track(start: int, total: int) -> Iterator[int]:
    """Count steps under a progress bar."""
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("training", total=total, completed=start)
        for index in range(start, total):
            yield index
            progress.advance(task)


Samples = Annotated[int, typer.Option(help="Training samples to see in all.")]
Seed = Annotated[int, typer.Option(help="Seed of weights, scenes and noise.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps; scenes are always drawn on the CPU.")]
Runs = Annotated[Path, typer.Option(help="Where checkpoints and logs are kept.")]


@app.command()
def depth(
    samples: Samples = 48_000, seed: Seed = 0, device: Device = "cpu", runs: Runs = Path("runs")
) -> None:
    """Train the depth model on the narrow domain."""
    target = torch.device(device)
    model = build_depth_model(seed).to(target)
    training = Training(model, runs / f"{DEPTH_NAME}-{seed}", rate=1e-3, samples=samples, batch=16)
    training.run(lambda generator: depth_steps(model, generator, 16, target), seed + 1)


@app.command()
def prior(
    samples: Samples = 288_000, seed: Seed = 0, device: Device = "cpu", runs: Runs = Path("runs")
) -> None:
    """Train the re-lighting prior on the broad domain."""
    target = torch.device(device)
    model = build_prior(seed).to(target)
    folder = runs / f"{PRIOR_NAME}-{seed}"
    training = Training(model, folder, rate=1e-3, samples=samples, batch=32)
    training.run(lambda generator: prior_steps(model, generator, 32, target), seed + 1)


@app.command("all")
def all_(seed: Seed = 0, device: Device = "cpu", runs: Runs = Path("runs")) -> None:
    """Train both and export them."""
    depth(seed=seed, device=device, runs=runs)
    prior(seed=seed, device=device, runs=runs)
    export(seed=seed, runs=runs)


@app.command()
def export(
    what: Annotated[Literal["both", "depth", "prior"], typer.Option()] = "both",
    seed: Seed = 0,
    runs: Runs = Path("runs"),
    out: Annotated[Path, typer.Option(help="Folder of the exported checkpoints.")] = WEIGHTS,
) -> None:
    """Write the averaged weights in half precision as transformers and diffusers load them."""
    from diffusers import DDIMScheduler

    if what in ("both", "depth"):
        model = build_depth_model(seed)
        model.load_state_dict(averaged(runs / f"{DEPTH_NAME}-{seed}"))
        model.half().save_pretrained(out / DEPTH_NAME)
    if what in ("both", "prior"):
        wrapped = build_prior(seed)
        wrapped.load_state_dict(averaged(runs / f"{PRIOR_NAME}-{seed}"))
        wrapped.unet.half().save_pretrained(out / PRIOR_NAME / "unet")
        DDIMScheduler(**SCHEDULE).save_pretrained(out / PRIOR_NAME / "scheduler")
        wrapped.layout.write(out / PRIOR_NAME)
    write_checksums(out)


def write_checksums(folder: Path) -> None:
    """Record the SHA-256 of every weight and configuration file, as `redepth doctor` checks them."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in {".safetensors", ".json"})
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines))


def averaged(folder: Path) -> dict[str, Tensor]:
    """Return the moving average of a run's last checkpoint."""
    state = torch.load(folder / "state.pt", weights_only=True, map_location="cpu")
    return state["average"]


if __name__ == "__main__":
    app()

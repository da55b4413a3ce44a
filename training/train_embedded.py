"""Train the embedded pair from scratch on procedural scenes: resumable, seeded, one command.

    python -m training.train_embedded all                      # everything below, one after the other
    python -m training.train_embedded depth                    # the depth model, narrow domain
    python -m training.train_embedded prior relighting         # conditioned on photo and light, broad domain
    python -m training.train_embedded prior unconditional      # unconditional, broad domain: the paper's kind
    python -m training.train_embedded prior narrow             # conditioned on photo and light, narrow domain
    python -m training.train_embedded export                   # half-precision safetensors

Two more are not shipped; `benchmarks/accuracy/compare_supervised.py` compares refinement with them::

    python -m training.train_embedded finetune                 # the depth model, on the broad domain's labels
    python -m training.train_embedded normals                  # a network from photo to normals, likewise

Each writes checkpoints and a log of its losses and validation (JSON lines) to ``runs/<name>-<seed>``. Started
again, it resumes from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
import typer
from torch import Generator, Tensor, nn

from redepth.checkpoints.embedded import COMPARISON, WEIGHTS
from redepth.cli.checks import CHECKSUMS, sha256
from redepth.data.scenes.synthetic import Domain, Scenes, scenes
from redepth.depth_models.depth_anything import DepthAnything
from redepth.io.assets import CHECKOUT
from redepth.ops.color import srgb_to_linear
from redepth.ops.filters import gaussian_blur
from redepth.ops.geometry import half_turn, normals_from_depth, relative_depth
from redepth.priors.pixel_unet import (
    LIGHT_CHANNELS,
    Layout,
    PixelUNet,
    condition_rows,
    light_vector,
)
from redepth.renderers.blinn_phong import BlinnPhong
from training.loop import Training, averaged

app = typer.Typer(add_completion=False, help=__doc__)

SIZE = 96
Kind = Literal["relighting", "unconditional", "narrow"]
DEPTH_NAME, FINETUNED_NAME, NORMALS_NAME = "relief-depth", "relief-depth-finetuned", "relief-normals"
PRIOR_NAMES: dict[Kind, str] = {
    "relighting": "relief-relighting-prior",
    "unconditional": "relief-prior",
    "narrow": "smooth-relighting-prior",
}
SAMPLES: dict[Kind, tuple[int, ...]] = {
    "relighting": (192_000, 128_000, 160_000, 160_000),
    "unconditional": (72_000, 128_000),
    "narrow": (16_000, 48_000),
}
"""Samples of each cycle of the learning rate."""
DEPTH_SAMPLES = (48_000,)
FINETUNE_SAMPLES, NORMALS_SAMPLES = (144_000, 96_000), (72_000, 160_000, 184_000)
"""Samples of the supervised networks: the same minutes, or pictures, as the shipped prior."""
BATCH = 16
VALIDATION_SEED, VALIDATION_SCENES = 5_000, 32
VALIDATION_TIMESTEPS = (100, 300, 500, 600, 700, 800, 900)
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
    # The disparity of a flat scene: with a bias near 0 the final ReLU dies.
    nn.init.constant_(model.head.conv3.bias, 6.9)
    return model


def build_prior(seed: int, kind: Kind = "relighting") -> PixelUNet:
    """Return a UNet of one kind of prior with fresh weights."""
    from diffusers import UNet2DConditionModel, UNet2DModel

    torch.manual_seed(seed)  # diffusers initialises from the global generator
    patch = 4
    shape: dict[str, Any] = {
        "sample_size": SIZE // patch,
        "out_channels": 3 * patch**2,
        "block_out_channels": (64, 112, 160),
        "layers_per_block": 1,
        "norm_num_groups": 16,
        "attention_head_dim": 32,
        "resnet_time_scale_shift": "scale_shift",
    }
    if kind == "unconditional":
        unet = UNet2DModel(
            in_channels=3 * patch**2,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            # With "scale_shift" diffusers omits the norm of the middle attention, and its gradient explodes.
            attn_norm_num_groups=16,
            **shape,
        )
        return PixelUNet(unet, Layout(size=SIZE, patch=patch))
    unet = UNet2DConditionModel(
        in_channels=2 * 3 * patch**2,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2D",
        cross_attention_dim=8,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=LIGHT_CHANNELS,
        **shape,
    )
    return PixelUNet(unet, Layout(size=SIZE, patch=patch, relighting=True))


DEPTH_SHAPES = ((0.1, 128, 160, 8), (0.2, 160, 128, 8), (0.3, 192, 192, 4), (1.0, SIZE, SIZE, 16))
"""Cumulative share of the training steps, height, width and pictures of a batch."""


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


def depth_steps(
    model: Any, generator: Generator, batch: int, device: torch.device, domain: Domain = "mid"
) -> Callable[[], Tensor]:
    """Return a function that computes the loss of the next batch."""
    depth_model = DepthAnything()
    depth_model.use(model, device)

    def step() -> Tensor:
        # Photos have all shapes: one batch in five is wider, one in ten larger than the square ones.
        kind = float(torch.rand((), generator=generator))
        height, width, count = next(shape for share, *shape in DEPTH_SHAPES if kind < share)
        drawn = with_mirrored(scenes(count // 2, domain, generator, height=height, width=width))
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
    low = torch.where(torch.rand(count, generator=generator) < 0.85, 500.0, 20.0)
    u = torch.rand(count, generator=generator)
    high = torch.where(low > 20.0, 1000.0, 500.0)
    return (low + u * (high - low)).long().clamp(max=999)


@dataclass
class PriorBatch:
    """The inputs of one training step of the prior, all (N, ...)."""

    clean: Tensor
    noisy: Tensor
    target: Tensor
    timestep: Tensor
    photo: Tensor
    light: Tensor

    def to(self, device: torch.device) -> PriorBatch:
        """Return a copy on the device."""
        return PriorBatch(**{k: v.to(device) for k, v in vars(self).items()})


@dataclass(frozen=True)
class Composites:
    """Re-lit pictures of true surfaces: (N,3,S,S) ``relit`` and ``photo`` in [-1, 1], (N,7) ``light``."""

    relit: Tensor
    photo: Tensor
    light: Tensor


def composites(count: int, domain: Domain, generator: Generator) -> Composites:
    """Draw scenes and re-light them, half of the pictures mirrored.

    One batch in eight has quarters of scenes of twice the side, like the windows of a photo that is larger
    than the prior's size.
    """
    large = float(torch.rand((), generator=generator)) < 0.125
    side, tiles = (2 * SIZE, 4) if large else (SIZE, 1)
    drawn = with_mirrored(scenes(count // (2 * tiles), domain, generator, height=side, width=side))
    illumination = BlinnPhong().draw(len(drawn.image), generator)
    relit = BlinnPhong()(drawn.depth, srgb_to_linear(drawn.image), illumination)[:, 0]
    light = light_vector(illumination.flatten())
    return Composites(
        windows(relit) * 2 - 1, windows(drawn.image) * 2 - 1, light.repeat_interleave(tiles, dim=0)
    )


def windows(pictures: Tensor) -> Tensor:
    """Cut pictures of any multiple of `SIZE` into windows of it, (N * tiles, C, S, S)."""
    tiles = pictures.unfold(2, SIZE, SIZE).unfold(3, SIZE, SIZE).permute(0, 2, 3, 1, 4, 5)
    return tiles.reshape(-1, pictures.shape[1], SIZE, SIZE)


def prior_batch(seen: Composites, generator: Generator, alphas: Tensor) -> PriorBatch:
    """Noise the composites at random timesteps and drop conditions at random.

    80 % are conditioned on photo and light, 10 % on the photo alone, 10 % are unconditional.
    """
    count = len(seen.relit)
    timestep = draw_timesteps(count, generator)
    noise = torch.randn(seen.relit.shape, generator=generator)
    alpha = alphas[timestep].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * seen.relit + (1 - alpha).sqrt() * noise
    target = alpha.sqrt() * noise - (1 - alpha).sqrt() * seen.relit
    chance = torch.rand(count, generator=generator)
    tell_photo, tell_light = (chance < 0.9).float(), (chance < 0.8).float()
    photo, vector = condition_rows(seen.photo, seen.light, tell_photo, tell_light)
    return PriorBatch(seen.relit, noisy, target, timestep, photo, vector)


def prior_steps(
    model: PixelUNet,
    generator: Generator,
    batch: int,
    device: torch.device,
    kind: Kind = "relighting",
    forward: Callable[..., Tensor] | None = None,
) -> Callable[[], Tensor]:
    """Return a function that computes the loss of the next batch, with a compiled ``forward`` if set."""
    alphas, predict = noise_schedule(), model if forward is None else forward

    def step() -> Tensor:
        b = prior_batch(composites(batch, DOMAINS[kind], generator), generator, alphas).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            prediction = predict(b.noisy, b.timestep, b.photo, b.light)
        return F.mse_loss(prediction.float(), b.target)

    return step


DOMAINS: dict[Kind, Domain] = {"relighting": "broad", "unconditional": "broad", "narrow": "mid"}


@torch.no_grad()
def validate_prior(model: PixelUNet, kind: Kind, device: torch.device) -> dict[str, Any]:
    """Measure on fixed scenes of the broad domain, by t: the loss, and how well x0 points to the truth.

    The picture x is re-lit from a wrong surface, the true one blurred and half as high; its one-step
    reconstruction x0 should lie in the direction of the true composite. Reported is the mean cosine
    between x0 - x and truth - x, with all conditions of the model and without conditions.
    """
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    drawn = scenes(VALIDATION_SCENES, "broad", generator, height=SIZE, width=SIZE)
    lights = BlinnPhong().draw(VALIDATION_SCENES, generator)
    linear = srgb_to_linear(drawn.image)
    wrong = 1 + 0.5 * (gaussian_blur(drawn.depth, 4.0) - 1)
    truth, x = (BlinnPhong()(depth, linear, lights)[:, 0] * 2 - 1 for depth in (drawn.depth, wrong))
    vector = light_vector(lights.flatten())
    noise, alphas = torch.randn(x.shape, generator=generator), noise_schedule()
    found: dict[str, Any] = {}
    for conditional in (True, False) if kind != "unconditional" else (False,):
        flag = torch.full((VALIDATION_SCENES,), float(conditional))
        photo, light = (v.to(device) for v in condition_rows(drawn.image * 2 - 1, vector, flag, flag))
        cosines, losses = [], []
        for t in VALIDATION_TIMESTEPS:
            a, b = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
            timestep = torch.full((VALIDATION_SCENES,), t, device=device)
            v = [
                model((a * picture + b * noise).to(device), timestep, photo, light).float().cpu()
                for picture in (x, truth)
            ]
            x0 = a * (a * x + b * noise) - b * v[0]
            cosines.append(float(F.cosine_similarity((x0 - x).flatten(1), (truth - x).flatten(1)).mean()))
            losses.append(float(F.mse_loss(v[1], a * noise - b * truth)))
        # Keys of the stored logs.
        found["told" if conditional else "untold"] = {"cosine": cosines, "loss": losses}
    return {"timesteps": list(VALIDATION_TIMESTEPS), **found}


@torch.no_grad()
def validate_depth(model: Any, device: torch.device) -> dict[str, Any]:
    """Measure SI-log and normal error on fixed scenes of both domains."""
    depth_model = DepthAnything()
    depth_model.use(model, device)
    found: dict[str, Any] = {}
    for domain in get_args(Domain):
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        drawn = scenes(VALIDATION_SCENES, domain, generator, height=SIZE, width=SIZE)
        depth = relative_depth(depth_model.decode(depth_model.encode(drawn.image.to(device))).cpu())
        logs = depth.log() - drawn.depth.log()
        found[domain] = {
            "silog": float(100 * logs.std(dim=(1, 2, 3)).mean()),
            "normals": float(angles(normals_from_depth(depth), normals_from_depth(drawn.depth)).mean()),
        }
    return found


def build_normals_model(seed: int) -> Any:
    """Return a UNet from photo to normals, of the prior's size, with fresh weights; it reads t = 0."""
    return build_prior(seed, "unconditional").unet


def predict_normals(model: Callable[..., Any], photo: Tensor) -> Tensor:
    """Return unit normals (N,3,S,S), in the frame of `normals_from_depth`, of photos in [0, 1].

    The network's own frame, which its weights were trained in, has x to the left and y down.
    """
    pictures = F.pixel_unshuffle(photo * 2 - 1, 4)
    out = model(pictures, torch.zeros(len(photo), device=photo.device)).sample
    return half_turn(F.normalize(F.pixel_shuffle(out.float(), 4), dim=1), dim=1)


def normals_steps(
    predict: Callable[..., Any], generator: Generator, batch: int, device: torch.device
) -> Callable[[], Tensor]:
    """Return a function that computes the loss, 1 minus the mean cosine, of the next batch."""

    def step() -> Tensor:
        drawn = with_mirrored(scenes(batch // 2, "broad", generator, height=SIZE, width=SIZE)).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            found = predict_normals(predict, drawn.image)
        return 1 - (found * normals_from_depth(drawn.depth)).sum(dim=1).mean()

    return step


@torch.no_grad()
def validate_normals(model: Any, device: torch.device) -> dict[str, Any]:
    """Measure the normal error in degrees on fixed scenes of both domains."""
    found: dict[str, Any] = {}
    for domain in get_args(Domain):
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        drawn = scenes(VALIDATION_SCENES, domain, generator, height=SIZE, width=SIZE)
        normals = predict_normals(model, drawn.image.to(device)).cpu()
        found[domain] = {"normals": float(angles(normals, normals_from_depth(drawn.depth)).mean())}
    return found


def angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles in degrees between unit normals, (B,3,H,W) each."""
    return torch.rad2deg(torch.acos((a * b).sum(dim=1).clamp(-1, 1)))


def noise_schedule() -> Tensor:
    """Return the cumulative alphas (1000,) of Stable Diffusion's schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(**SCHEDULE).alphas_cumprod


Samples = Annotated[
    int | None, typer.Option(help="Training samples, in one cycle; by default the network's own.")
]
Seed = Annotated[int, typer.Option(help="Seed of weights, scenes and noise.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps; scenes are always drawn on the CPU.")]
Runs = Annotated[Path, typer.Option(help="Where checkpoints and logs are kept.")]


Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the exported checkpoints; by default the package's weights for the embedded pair, "
        "benchmarks/checkpoints for the other priors."
    ),
]
Until = Annotated[int | None, typer.Option(help="Stop after this step; the same command goes on.")]
Compile = Annotated[bool, typer.Option(help="Compile the network: a fifth faster; needs a C++ compiler.")]


def train(
    model: nn.Module,
    name: str,
    make_step: Callable[[Generator], Callable[[], Tensor]],
    validate: Callable[[Any], dict[str, Any]],
    *,
    cycles: Sequence[int],
    seed: int,
    runs: Path,
    until: int | None,
    rate: float = 1e-3,
) -> None:
    """Train a network in ``runs/name``, which may hold the beginning of it."""
    training = Training(model, runs / name, rate=rate, cycles=cycles, batch=BATCH, validate=validate)
    training.run(make_step, seed, until)


@app.command()
def depth(
    samples: Samples = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    until: Until = None,
) -> None:
    """Train the depth model on the narrow domain."""
    target = torch.device(device)
    model = build_depth_model(seed).to(target)
    train(
        model,
        f"{DEPTH_NAME}-{seed}",
        lambda generator: depth_steps(model, generator, BATCH, target),
        lambda average: validate_depth(average, target),
        cycles=(samples,) if samples else DEPTH_SAMPLES,
        seed=seed + 1,
        runs=runs,
        until=until,
    )


@app.command()
def finetune(
    samples: Samples = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    until: Until = None,
) -> None:
    """Train the depth model of this seed further, on the broad domain with its labels."""
    target = torch.device(device)
    model = build_depth_model(seed).to(target)
    model.load_state_dict(averaged(runs / f"{DEPTH_NAME}-{seed}"))
    train(
        model,
        f"{FINETUNED_NAME}-{seed}",
        lambda generator: depth_steps(model, generator, BATCH, target, "broad"),
        lambda average: validate_depth(average, target),
        rate=5e-4,
        cycles=(samples,) if samples else FINETUNE_SAMPLES,
        seed=seed + 2,
        runs=runs,
        until=until,
    )


@app.command()
def normals(
    samples: Samples = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    compiled: Compile = False,
    until: Until = None,
) -> None:
    """Train a network from photo to normals on the broad domain."""
    target = torch.device(device)
    model = build_normals_model(seed).to(target)
    predict = torch.compile(model) if compiled else model
    train(
        model,
        f"{NORMALS_NAME}-{seed}",
        lambda generator: normals_steps(predict, generator, BATCH, target),
        lambda average: validate_normals(average, target),
        cycles=(samples,) if samples else NORMALS_SAMPLES,
        seed=seed + 1,
        runs=runs,
        until=until,
    )


@app.command()
def prior(
    kind: Annotated[Kind, typer.Argument(help="Which prior.")] = "relighting",
    samples: Samples = None,
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    compiled: Compile = False,
    until: Until = None,
) -> None:
    """Train a prior."""
    target = torch.device(device)
    model = build_prior(seed, kind).to(target)
    forward = cast(Callable[..., Tensor], torch.compile(model)) if compiled else None
    train(
        model,
        f"{PRIOR_NAMES[kind]}-{seed}",
        lambda generator: prior_steps(model, generator, BATCH, target, kind, forward),
        lambda average: validate_prior(average, kind, target),
        cycles=(samples,) if samples else SAMPLES[kind],
        seed=seed + 1,
        runs=runs,
        until=until,
    )


@app.command("all")
def all_(
    seed: Seed = 0,
    device: Device = "cpu",
    runs: Runs = Path("runs"),
    out: Out = None,
    compiled: Compile = False,
    until: Until = None,
) -> None:
    """Train all and export them."""
    depth(seed=seed, device=device, runs=runs, until=until)
    for kind in PRIOR_NAMES:
        prior(kind, seed=seed, device=device, runs=runs, compiled=compiled, until=until)
    export(seed=seed, runs=runs, out=out)


@app.command()
def export(
    only: Annotated[list[str] | None, typer.Option(help="Only these models, by name.")] = None,
    seed: Seed = 0,
    runs: Runs = Path("runs"),
    out: Out = None,
) -> None:
    """Write the averaged weights in half precision as transformers and diffusers load them."""
    from diffusers import DDIMScheduler

    names = [DEPTH_NAME, *PRIOR_NAMES.values()]
    if unknown := set(only or []) - set(names):
        raise typer.BadParameter(f"no model {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    if DEPTH_NAME in (only or names):
        model = build_depth_model(seed)
        model.load_state_dict(averaged(runs / f"{DEPTH_NAME}-{seed}"))
        model.half().save_pretrained(export_folder(DEPTH_NAME, out) / DEPTH_NAME)
    for kind, name in PRIOR_NAMES.items():
        if name not in (only or names):
            continue
        wrapped = build_prior(seed, kind)
        wrapped.load_state_dict(averaged(runs / f"{name}-{seed}"))
        folder = export_folder(name, out) / name
        wrapped.unet.half().save_pretrained(folder / "unet")
        DDIMScheduler(**SCHEDULE).save_pretrained(folder / "scheduler")
        wrapped.layout.write(folder)
    for folder in {export_folder(name, out) for name in only or names}:
        write_checksums(folder)


def export_folder(name: str, out: Path | None) -> Path:
    """Return the folder that a checkpoint is exported to: the package, or the repository's benchmarks."""
    if out is not None:
        return out
    return CHECKOUT / "checkpoints" if name in COMPARISON else WEIGHTS


def write_checksums(folder: Path) -> None:
    """Record the SHA-256 of every weight and configuration file, as `redepth doctor` checks them."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in {".safetensors", ".json"})
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines))


if __name__ == "__main__":
    app()

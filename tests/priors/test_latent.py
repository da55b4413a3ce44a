"""What all latent priors share: the way into the latents, precision, VAEs, prompts, the cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from redepth.contracts import Condition, Execution, Illumination, Noise
from redepth.errors import InputError, WeightsError
from redepth.ops.triton import kernels as support
from redepth.priors import text
from redepth.priors.distillation import StepInputs
from redepth.priors.ic_light import ICLight
from redepth.priors.pictures import fit_square, scale_gradient
from redepth.priors.stable_diffusion import StableDiffusion
from redepth.priors.stable_diffusion_xl import StableDiffusionXL
from redepth.runtime.networks import Graphed
from tests.support.checkpoints import SD, copy_of, save_tiny_vae, tiny, to_cache
from tests.support.helpers import CPU, photo, relative_error, seeded


@pytest.fixture(scope="module")
def prior() -> StableDiffusion:
    return StableDiffusion(checkpoint=str(SD)).load(CPU)


def small(checkpoint: Path = SD, **options: Any) -> StableDiffusion:
    return StableDiffusion(checkpoint=str(checkpoint), **{"size": 64, "guidance_scale": 2.0, **options})


def score(prior: StableDiffusion, picture: torch.Tensor, prompt: str = "a tiger") -> torch.Tensor:
    return prior(picture, prior.condition(photo(), prompt), Illumination(), prior.draw(1, seeded()))


def refusal(prior: StableDiffusion) -> str:
    """What loading says, in one line."""
    with pytest.raises(WeightsError) as error:
        prior.load(CPU)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_the_frozen_model_is_in_eval_mode_and_gets_no_gradient(prior: StableDiffusion) -> None:
    prior.condition(photo(), "not asked before")
    assert prior._encoders is not None
    encoders = [encoder for _, _, encoder in prior._encoders._parts]
    for model in (prior._denoiser, prior._vae, *encoders):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.slow
def test_rows_are_scored_independently(prior: StableDiffusion) -> None:
    pictures = torch.cat([photo(seed=s) for s in range(2)])
    condition = prior.condition(pictures[:1], "a tiger")
    noise = prior.draw(2, seeded())
    together = prior(pictures, condition, Illumination(), noise)
    for i in range(2):
        row = Noise({k: v[i : i + 1] for k, v in noise.tensors.items()})
        alone = prior(pictures[i : i + 1], condition, Illumination(), row)
        assert float(alone) == pytest.approx(float(together[i]), rel=1e-4)


def test_timesteps_cover_their_range_and_nothing_else(prior: StableDiffusion) -> None:
    drawn = prior.draw_timesteps(5000, seeded())
    assert int(drawn.min()) == 20
    assert int(drawn.max()) == 600


# --- the picture ----------------------------------------------------------------------------------


def test_fit_square_keeps_the_aspect_ratio_and_centres() -> None:
    fitted = fit_square(torch.ones(1, 3, 56, 70), 512)
    assert fitted.shape == (1, 3, 512, 512)
    rows = fitted[0, 0, :, 256].nonzero()[:, 0]
    assert (int(rows[0]), len(rows)) == (51, 410)


def test_scaling_the_gradient_there_and_back_changes_nothing() -> None:
    x = torch.rand(3, generator=seeded()).requires_grad_()
    (scale_gradient(scale_gradient(x, 1 / 64) ** 2, 64.0)).sum().backward()
    assert torch.allclose(x.grad, 2 * x)


def test_float16_on_a_cpu_runs_in_float32() -> None:
    assert StableDiffusion(dtype="float16").precision(CPU) is torch.float32
    assert StableDiffusion(dtype="float16").precision(torch.device("cuda")) is torch.float16


@pytest.mark.parametrize("vae", ["own", "tiny"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_in_half_precision_the_gradient_is_finite_and_points_the_same_way(
    dtype: torch.dtype, reduction: Any, vae: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradient(precision: torch.dtype) -> torch.Tensor:
        monkeypatch.setattr(StableDiffusion, "precision", lambda *_: precision)
        other = str(tiny("tiny-vae")) if vae == "tiny" else None
        prior = small(reduction=reduction, vae=vae, vae_checkpoint=other).load(CPU)
        picture = photo().requires_grad_()
        score(prior, picture).sum().backward()
        return picture.grad.flatten()

    half, full = gradient(dtype), gradient(torch.float32)
    assert torch.isfinite(half).all()
    assert torch.cosine_similarity(half, full, dim=0) > 0.95
    assert half.norm() == pytest.approx(float(full.norm()), rel=0.1)


# --- the VAE --------------------------------------------------------------------------------------


def test_the_tiny_vaes_latents_are_taken_as_they_are_and_the_noise_is_the_same() -> None:
    from diffusers import AutoencoderTiny

    folder = tiny("tiny-vae")
    prior = small(vae="tiny", vae_checkpoint=str(folder)).load(CPU)
    noise = prior.draw(2, seeded())
    own = small().load(CPU).draw(2, seeded())
    assert all(torch.equal(noise[name], own[name]) for name in own.tensors)
    square = torch.rand(2, 3, 64, 64, generator=seeded())
    expected = AutoencoderTiny.from_pretrained(folder).encode(square * 2 - 1).latents
    assert torch.allclose(prior.to_model_space(square, noise), expected, atol=1e-6)
    assert prior.describe()["vae_checkpoint"] == str(folder)


def test_a_vae_of_other_latents_is_refused(tmp_path: Path) -> None:
    save_tiny_vae(tmp_path / "vae", channels=16)
    said = refusal(small(vae="tiny", vae_checkpoint=str(tmp_path / "vae")))
    assert "its denoiser reads 4 channels and the VAE makes 16" in said
    said = refusal(small(vae="own", vae_checkpoint=str(tiny("tiny-vae"))))
    assert "is a 'AutoencoderTiny', and AutoencoderKL is needed" in said


def test_a_vae_in_place_of_the_pipelines_own_is_used(tmp_path: Path) -> None:
    vae = shutil.copytree(tiny("sd21") / "vae", tmp_path / "vae")
    spoiled = copy_of("sd15", tmp_path)
    shutil.rmtree(spoiled / "vae")
    prior = small(spoiled, vae_checkpoint=str(vae)).load(CPU)
    assert torch.isfinite(score(prior, photo())).all()


def test_a_vae_with_the_names_of_old_diffusers_is_whole(tmp_path: Path) -> None:
    """The published VAE of Stable Diffusion 1.5 names its attention query, key, value and proj_attn."""
    from safetensors.torch import load_file, save_file

    folder = copy_of("sd15", tmp_path)
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in load_file(file).items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        renamed[name] = value
    assert any(".query." in name for name in renamed)
    save_file(renamed, file, {"format": "pt"})
    expected, found = (score(small(f).load(CPU), photo()) for f in (tiny("sd15"), folder))
    assert torch.equal(found, expected)


def test_a_text_encoder_with_the_names_of_published_ones_is_whole(tmp_path: Path) -> None:
    """Those have a prefix that transformers 5 does not write, and a buffer that it does not read."""
    from safetensors.torch import load_file, save_file

    folder = copy_of("sd15", tmp_path)
    file = folder / "text_encoder" / "model.safetensors"
    weights = {f"text_model.{name.removeprefix('text_model.')}": v for name, v in load_file(file).items()}
    save_file(weights | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, file)
    found, expected = (small(f).load(CPU).embed_text("a tiger") for f in (folder, tiny("sd15")))
    assert torch.equal(found["embedding"], expected["embedding"])


# --- random weights -------------------------------------------------------------------------------


def test_random_weights_are_the_same_architecture_seeded_and_need_no_weights_file(tmp_path: Path) -> None:
    folder = copy_of("sd15", tmp_path)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    state = torch.random.get_rng_state()
    first, again, other = (small(folder, weights="random", random_seed=seed).load(CPU) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    trained = small(tiny("sd15")).load(CPU)
    weights = [p._denoiser.state_dict() for p in (first, again, other, trained)]
    shapes = [{k: v.shape for k, v in w.items()} for w in weights]
    assert shapes[0] == shapes[3]
    name = "mid_block.resnets.0.conv1.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])
    assert not torch.equal(weights[0][name], weights[3][name])
    # The way into the latents is the trained one.
    noise = trained.draw(1, seeded())
    assert torch.equal(first.to_model_space(photo(), noise), trained.to_model_space(photo(), noise))
    assert first.describe()["weights"] == "random"


# --- prompts --------------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_is_refused(prior: StableDiffusion) -> None:
    with pytest.raises(InputError, match="tokens long and the text encoder reads 24: shorten it"):
        prior.condition(photo(), "a very long prompt " * 20)


class Unwanted:
    """Text encoders that must not be loaded."""

    def __init__(self, *_: Any) -> None:
        raise AssertionError("loaded the text encoders")


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "embeddings").glob("*.safetensors"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REDEPTH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_embedding_is_computed_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = small().load(CPU).condition(photo(), "../../etc: a tiger?")
    assert len(entries(cache)) == 2
    monkeypatch.setattr("redepth.priors.text_diffusion.TextEncoders", Unwanted)
    known = small().load(CPU).condition(photo(), "../../etc: a tiger?")
    assert all(torch.equal(first.tensors[k], known.tensors[k]) for k in first.tensors)
    with pytest.raises(AssertionError, match="loaded the text encoders"):
        small().load(CPU).condition(photo(), "a lion")
    assert all(len(path.stem) == 64 for path in entries(cache))


def test_an_embedding_belongs_to_text_weights_and_precision(cache: Path, tmp_path: Path) -> None:
    folder = copy_of("sd15", tmp_path)

    def count(**options: Any) -> int:
        small(folder, **options).load(CPU).condition(photo(), "a")
        return len(entries(cache))

    # The prompt and the empty one.
    assert count() == 2
    assert count(weighting="sds", score="csd") == 2
    assert count(negative_prompt="dull") == 3
    assert count(dtype="bfloat16") == 5
    shutil.copytree(tiny("xl") / "text_encoder", folder / "text_encoder", dirs_exist_ok=True)
    (folder / "text_encoder" / "config.json").touch()
    assert count() == 7


def test_an_embedding_belongs_to_a_variant_of_a_commit(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text encoders of several variants are in one commit of the hub."""
    from safetensors.torch import load_file, save_file

    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    folder = copy_of("sd15", tmp_path)
    for weights in list(folder.rglob("*.safetensors")):
        other = weights.with_name(weights.name.replace(".safetensors", ".fp16.safetensors"))
        save_file({k: 0.9 * v for k, v in load_file(weights).items()}, other)
    to_cache(folder, hub, "somebody/sd")

    def embedding(**options: Any) -> torch.Tensor:
        prior = StableDiffusion(checkpoint="somebody/sd", size=64, **options).load(CPU)
        return prior.condition(photo(), "a").tensors["text"]

    first = embedding()
    assert not torch.equal(embedding(variant="fp16"), first)
    assert torch.equal(embedding(), first)
    assert len(entries(cache)) == 4


@pytest.mark.parametrize("damage", [b"", b"not safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_entry_is_ignored_and_written_anew(cache: Path, damage: bytes) -> None:
    expected = small().load(CPU).condition(photo(), "a")
    whole = [path.read_bytes() for path in entries(cache)]
    for path in entries(cache):
        path.write_bytes(damage)
    found = small().load(CPU).condition(photo(), "a")
    assert torch.equal(found.tensors["text"], expected.tensors["text"])
    assert [path.read_bytes() for path in entries(cache)] == whole


def test_a_cache_that_cannot_be_written_to_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("REDEPTH_CACHE", str(tmp_path / "file"))
    condition = small().load(CPU).condition(photo(), "a")
    assert isinstance(condition, Condition)
    assert "cannot be written to" in caplog.text
    assert "REDEPTH_CACHE" in caplog.text


def test_the_encoders_leave_the_device_after_use(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[bool] = []
    release = text.TextEncoders.release
    monkeypatch.setattr(text.TextEncoders, "release", lambda self: (released.append(True), release(self)))
    prior = small().load(CPU)
    prior.condition(photo(), "not asked so far")
    assert released == [True]


# --- checkpoints that cannot be used --------------------------------------------------------------


def test_a_missing_and_a_corrupted_checkpoint_say_so(tmp_path: Path) -> None:
    assert "no such folder" in refusal(small(tmp_path / "nothing"))
    folder = copy_of("sd15", tmp_path)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not safetensors")
    said = refusal(small(folder))
    assert "UNet2DConditionModel" in said
    assert "damaged" in said
    (folder / "vae" / "config.json").unlink()
    assert "has no vae/config.json: the checkpoint is incomplete" in refusal(small(folder))
    (folder / "vae" / "config.json").write_text("{")
    assert "is not JSON" in refusal(small(folder))


def test_a_checkpoint_of_another_class_names_the_prior_that_reads_it(tmp_path: Path) -> None:
    assert "is a StableDiffusionXLPipeline: take prior.name=stable-diffusion-xl" in refusal(small(tiny("xl")))
    said = refusal(StableDiffusionXL(checkpoint=str(tiny("sd15")), vae_checkpoint=None))
    assert "has no text_encoder_2/model.safetensors" in said
    # Without an index, as somebody's own folder may be, the UNet tells.
    folder = copy_of("xl", tmp_path)
    (folder / "model_index.json").unlink()
    assert "for SDXL take prior.name=stable-diffusion-xl" in refusal(small(folder))
    shutil.copytree(tiny("sd15") / "unet", folder / "unet", dirs_exist_ok=True)
    assert "for Stable Diffusion 1.x and 2.x take" in refusal(StableDiffusionXL(checkpoint=str(folder)))


def test_a_denoiser_of_another_class_or_with_other_channels_is_refused(tmp_path: Path) -> None:
    folder = copy_of("sd15", tmp_path)
    shutil.rmtree(folder / "unet")
    shutil.copytree(tiny("ddpm") / "unet", folder / "unet")
    said = refusal(small(folder))
    assert "unet' is a 'UNet2DModel', and UNet2DConditionModel is needed" in said
    config = json.loads((tiny("sd15") / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"in_channels": 9}))
    assert "UNet2DConditionModel" in refusal(small(folder))
    assert "reads 9 channels and the VAE makes 4" in refusal(small(folder, weights="random"))


def test_a_model_that_lacks_weights_is_refused_not_filled_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of("sd15", tmp_path)
    for part in ("unet/diffusion_pytorch_model", "text_encoder/model"):
        file = folder / f"{part}.safetensors"
        whole = load_file(file)
        kept = {k: v for k, v in whole.items() if not k.endswith("conv_in.bias") and "layers.1" not in k}
        assert len(kept) < len(whole)
        save_file(kept, file, {"format": "pt"})
        with pytest.raises(WeightsError, match=r"of its weights\s+are missing .*damaged or of another"):
            small(folder).load(CPU).condition(photo(), "a thing for which nothing is cached")
        save_file(whole, file, {"format": "pt"})
    assert relative_error(*(score(small(f).load(CPU), photo()) for f in (folder, tiny("sd15")))) == 0


def test_a_hub_id_offline_says_what_to_do() -> None:
    with pytest.raises(WeightsError, match="--preset embedded"):
        StableDiffusion().ensure_available()


# --- what branches have in common -----------------------------------------------------------------

FAMILIES = {
    "sd15": lambda **o: StableDiffusion(checkpoint=str(tiny("sd15")), size=64, **o),
    "sd21": lambda **o: StableDiffusion(checkpoint=str(tiny("sd21")), size=64, **o),
    "xl": lambda **o: StableDiffusionXL(checkpoint=str(tiny("xl")), size=64, **o),
    "ic-light": lambda **o: ICLight(
        checkpoint=str(tiny("ic-light")), light_checkpoint=str(tiny("ic-light")), size=64, **o
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fused", [False, True])
def test_a_shared_prefix_changes_nothing(family: str, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For one, two and three branches, of two rows with noise and timestep of their own."""
    monkeypatch.setattr(support, "INTERPRETED", False)
    model = FAMILIES[family](score="nfsd", negative_prompt="dull").load(CPU)
    lit = Illumination(
        {"direction": torch.nn.functional.normalize(torch.rand(2, 3, generator=seeded()), dim=1)}
    )
    inputs = StepInputs(model.condition(photo(), "a tiger"), lit, model.draw(2, seeded()))
    noisy, t = inputs.noise["noise"], torch.tensor([20, 700])
    for branches in (("text",), ("text", "uncond"), ("text", "uncond", "negative")):
        found = []
        for shared in (False, True):
            model.tune(Execution(channels_last=False, fused_kernels=fused, shared_prefix=shared))
            with torch.no_grad():
                found.append(torch.cat(list(model.predict(noisy, t, inputs, branches).values())))
            unet = model.network()
            wrapped = [n for n, m in unet.named_modules() if "_for_one" in str(m.__dict__.get("forward"))]
            first = "down_blocks.0"
            block = f"{first}.attentions.0"
            expected = [
                "conv_in",
                f"{block}.proj_in",
                f"{block}.transformer_blocks.0.attn1",
                f"{first}.resnets.0",
            ]
            assert wrapped == (expected if shared and family != "xl" else [])
        assert relative_error(found[1], found[0]) < 1e-6


def test_a_shared_prefix_is_computed_for_the_rows_of_one_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(score="nfsd", negative_prompt="dull").load(CPU)
    model.tune(Execution(channels_last=False, shared_prefix=True))
    inputs = StepInputs(model.condition(photo(), "a tiger"), Illumination(), model.draw(2, seeded()))
    seen: list[int] = []
    original = torch.nn.Conv2d._conv_forward
    monkeypatch.setattr(
        torch.nn.Conv2d, "_conv_forward", lambda self, x, *a: (seen.append(len(x)), original(self, x, *a))[1]
    )
    with torch.no_grad():
        model.predict(inputs.noise["noise"], torch.tensor([20, 700]), inputs, ("text", "uncond", "negative"))
    assert seen[:4] == [2, 2, 2, 2]  # conv_in, two of the residual block, proj_in
    assert set(seen[4:]) == {6}


def test_graphs_know_of_how_many_branches_their_rows_are() -> None:
    """Two rows of three branches and three rows of two have the same shapes."""
    model = small(score="nfsd", negative_prompt="dull").load(CPU)
    model.tune(Execution(channels_last=False, shared_prefix=True, cuda_graphs=True))
    call = model.network().forward
    assert isinstance(call, Graphed)
    assert call._branches is model._branches

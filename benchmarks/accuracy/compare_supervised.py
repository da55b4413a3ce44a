"""Compare refinement with training on labels: a fine-tuned depth model, a network from photo to normals.

    python -m training.train_embedded finetune && python -m training.train_embedded normals
    python -m benchmarks.accuracy.compare_supervised

It writes benchmarks/results/accuracy/supervised.json. Both networks were trained on images of the broad
domain with their true depth, which refinement never sees. They are measured on the scenes of ``redepth
experiment`` and by its protocol, so that the rows are comparable.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy.studies import STORED
from redepth.components import versions
from redepth.data.datasets import Sample
from redepth.depth_models.depth_anything import DepthAnything
from redepth.experiments.study import EVALUATION_SEED, SYNTHETIC, open_scenes
from redepth.experiments.summary import RESAMPLES_SEED, percent
from redepth.io import save_json
from redepth.metrics import Interval, bootstrap_interval
from redepth.protocols import EvaluationProtocol, evaluate, load_protocol
from training.loop import averaged
from training.networks import SIZE, build_depth_model, build_normals_model
from training.relief_depth import angles
from training.relief_normals import predict_normals
from training.train_embedded import DEPTH_NAME, FINETUNED_NAME, NORMALS_NAME

RESULT = STORED / "supervised.json"
SPLITS = ["in-domain", "relief", "shapes", "broad"]


def load_depth_model(runs: Path, name: str, seed: int) -> DepthAnything:
    """Return the depth model of a training run."""
    network = build_depth_model(seed)
    network.load_state_dict(averaged(runs / f"{name}-{seed}"))
    model = DepthAnything(longer_side=SIZE)
    model.use(network, torch.device("cpu"))
    return model


def samples(split: str, images: int) -> Iterator[Sample]:
    """Yield the scenes that experiments report on."""
    strength = 1.0 if split in ("relief", "shapes") else None
    reader = open_scenes(split, strength, images, SIZE, EVALUATION_SEED)
    for name in reader.names():
        yield reader.load(name)


@torch.no_grad()
def measure(
    sample: Sample, protocol: EvaluationProtocol, models: dict[str, DepthAnything], normals: Any
) -> dict[str, Any]:
    """Return SI-log and normal error of each depth model, and the normal error of the normals' network."""
    photo = torch.from_numpy(sample.pixels()).permute(2, 0, 1)[None]
    row: dict[str, Any] = {"image": sample.name}
    for name, model in models.items():
        raw = model.decode(model.encode(model.prepare(photo)))
        metrics = evaluate(protocol, raw[0, 0], sample).metrics
        row[name] = {"silog": metrics["silog"], "normals": metrics["normals_mean"]}
    assert sample.normals is not None
    truth = torch.from_numpy(sample.normals).permute(2, 0, 1)[None]
    found = predict_normals(normals, photo)
    row["photo to normals"] = {"normals": float(angles(found, truth).mean())}
    return row


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means, and the fine-tuned model's relative change with its 95 % interval."""
    before, after = ([row[name]["silog"] for row in rows] for name in (DEPTH_NAME, FINETUNED_NAME))
    generator = torch.Generator().manual_seed(RESAMPLES_SEED)
    change = bootstrap_interval(before, after, generator=generator)
    mean = {
        name: {key: sum(row[name][key] for row in rows) / len(rows) for key in rows[0][name]}
        for name in rows[0]
        if name != "image"
    }
    return {**mean, "change": {"percent": change.change, "low": change.low, "high": change.high}}


def main(
    images: Annotated[int, typer.Option(min=2, help="Scenes a split.")] = 128,
    split: Annotated[
        list[str] | None, typer.Option(help="Splits; by default those with one geometry.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the training runs.")] = 0,
    runs: Annotated[Path, typer.Option(help="Where the training runs are.")] = Path("runs"),
    out: Annotated[Path, typer.Option(help="The JSON file.")] = RESULT,
) -> None:
    """Measure and print the table."""
    protocol = load_protocol(SYNTHETIC)
    models = {name: load_depth_model(runs, name, seed) for name in (DEPTH_NAME, FINETUNED_NAME)}
    normals = build_normals_model(seed)
    normals.load_state_dict(averaged(runs / f"{NORMALS_NAME}-{seed}"))
    normals.eval()
    table = Table("scenes", "SI-log", "fine-tuned", "change", "normals", "fine-tuned", "photo to normals")
    record: dict[str, Any] = {"images": images, "seed": seed, "versions": versions(), "splits": {}}
    for name in split or SPLITS:
        rows = [measure(sample, protocol, models, normals) for sample in samples(name, images)]
        found = summarise(rows)
        record["splits"][name] = {"summary": found, "rows": rows}
        base, tuned, change = found[DEPTH_NAME], found[FINETUNED_NAME], found["change"]
        table.add_row(
            name,
            f"{base['silog']:.2f}",
            f"{tuned['silog']:.2f}",
            percent(Interval(change["percent"], change["low"], change["high"]), images),
            f"{base['normals']:.1f}",
            f"{tuned['normals']:.1f}",
            f"{found['photo to normals']['normals']:.1f}",
        )
    save_json(out, record)
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)

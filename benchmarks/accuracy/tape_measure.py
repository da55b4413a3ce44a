"""What a few measured points make of a prediction: the error in metres on motorcycle, over many draws.

    python -m benchmarks.accuracy.tape_measure

Points are drawn anywhere in the photo, with 1 % noise. Two predictions of disparity are fitted to them
(`fit_metric`): that of the embedded depth model, which knows nothing of such photos, and a stand-in for a
model that does, the true disparity blurred by 8 pixels, with an unknown scale and shift. AbsRel is of the
depth in metres as it is, beside that of the best scale and shift for all pixels (the protocol
``motorcycle``). Rows go to benchmarks/results/accuracy/tape_measure.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from redepth import io
from redepth.data.datasets.middlebury import Motorcycle
from redepth.errors import InputError
from redepth.guidance import Anchors
from redepth.metrics.metric_fit import fit_metric
from redepth.ops.filters import fill_holes, gaussian_blur
from redepth.ops.geometry import resize
from redepth.pipeline import Pipeline
from redepth.protocols import load_protocol, measure, prepare

RESULT = Path(__file__).parents[1] / "results" / "accuracy" / "tape_measure.json"
COUNTS, DRAWS, NOISE, BLUR = (3, 10), 200, 0.01, 8.0


def stand_in(depth: Tensor) -> Tensor:
    """Return a disparity (1,1,H,W) that has the large forms of a depth (H,W), 0 where unknown."""
    known = depth > 0
    disparity = torch.where(known, 1 / depth.clamp(min=1e-6), torch.nan)
    return 3 * gaussian_blur(fill_holes(disparity[None, None], known[None, None]), BLUR) - 0.2


def drawn(depth: Tensor, count: int, generator: torch.Generator) -> Anchors:
    """Return so many known points of a depth (H,W), with noise."""
    rows, columns = torch.nonzero(depth > 0, as_tuple=True)
    some = torch.randperm(len(rows), generator=generator)[:count]
    y, x = rows[some], columns[some]
    noisy = depth[y, x] * (1 + NOISE * torch.randn(count, generator=generator))
    height, width = depth.shape
    return Anchors((x + 0.5) / width, (y + 0.5) / height, noisy)


def error(metres: np.ndarray[Any, Any], depth: Tensor) -> float:
    """Return the AbsRel of a depth in metres; beyond infinity counts as the largest true depth."""
    known = depth > 0
    fitted = torch.nan_to_num(torch.from_numpy(metres).double(), nan=float(depth.max()))
    return float(((fitted - depth).abs() / depth)[known].mean())


def rows(raw: Tensor, depth: Tensor) -> list[dict[str, Any]]:
    """Measure draws of each number of points on a prediction (1,1,H,W)."""
    found = []
    for count in COUNTS:
        generator = torch.Generator().manual_seed(count)
        errors, refused, flat, confident = [], 0, 0, []
        for _ in range(DRAWS):
            try:
                fit = fit_metric(raw[0, 0], drawn(depth, count, generator))
            except InputError:
                refused += 1
                continue
            errors.append(error(fit.depth(raw[0, 0].numpy(), "disparity"), depth))
            flat += fit.contradicted
            confident += [] if fit.warning else errors[-1:]
        quartiles = np.percentile(errors, [25, 50, 75]) if errors else [np.nan] * 3
        found.append(
            {
                "points": count,
                "draws": DRAWS,
                "refused": refused,
                "flat": flat,
                "without_warning": len(confident),
                "abs_rel_quartiles": [round(float(q), 4) for q in quartiles],
            }
        )
    return found


def main() -> None:
    """Measure both predictions, print and store the rows."""
    protocol = load_protocol("motorcycle")
    sample = prepare(protocol, Motorcycle().load("motorcycle"))
    depth = sample.depth()
    photo = torch.from_numpy(sample.pixels()).permute(2, 0, 1)[None].float()
    _, _, predicted = Pipeline("embedded-relief", device="cpu").refiner.predict(photo)
    predictions = {
        "embedded model": resize(predicted, *depth.shape, align_corners=True),
        "stand-in": stand_in(depth).float(),
    }
    results = {}
    for name, raw in predictions.items():
        best = measure(protocol, raw[0, 0], sample).row.metrics["abs_rel"]
        results[name] = {"abs_rel_best_alignment": round(best, 4), "rows": rows(raw, depth)}
        print(name, results[name])
    io.save_json(RESULT, results)


if __name__ == "__main__":
    main()

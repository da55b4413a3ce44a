"""Angles between normals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor

from redepth.errors import InputError
from redepth.metrics import normal_metrics
from tests.support.helpers import seeded
from tests.support.metrics import SEEDS, close, few


def turned(degrees: list[float]) -> Tensor:
    """Normals (3, 1, N) turned from the z axis about y."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.sin(), torch.zeros_like(angles), angles.cos()])[:, None]


def test_angles_between_normals() -> None:
    degrees = [0.0, 1e-5, 6.0, 10.0, 20.0, 25.0, 60.0, 180.0]
    upright = turned([0.0] * 8)
    metrics = {name: float(v) for name, v in normal_metrics(3 * turned(degrees), upright).items()}
    assert metrics == pytest.approx(
        {
            "normals_mean": sum(degrees) / 8,
            "normals_median": 15.0,
            "normals_5": 25.0,
            "normals_7.5": 37.5,
            "normals_11.25": 50.0,
            "normals_22.5": 62.5,
            "normals_30": 75.0,
        }
    )
    small = normal_metrics(turned([1e-5]), upright[..., :1])["normals_mean"]
    assert float(small) == pytest.approx(1e-5, rel=1e-6)


@few
@given(SEEDS)
def test_turning_both_changes_no_angle(seed: int) -> None:
    n, m = (torch.randn(3, 5, 6, generator=seeded(seed + i), dtype=torch.float64) for i in (0, 1))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=seeded(seed + 2), dtype=torch.float64)).Q
    rotated = [torch.einsum("ij,jhw->ihw", turn, values) for values in (n, m)]
    close(normal_metrics(*rotated), normal_metrics(n, m), rtol=1e-6, atol=1e-6)


def test_normals_are_measured_where_the_truth_has_one() -> None:
    truth, p = turned([0.0, 0.0, 0.0]), turned([10.0, 20.0, 90.0])
    truth[:, 0, 2] = 0.0
    assert float(normal_metrics(p, truth)["normals_mean"]) == pytest.approx(15.0)
    mask = torch.tensor([[True, False, True]])
    assert float(normal_metrics(p, truth, mask)["normals_mean"]) == pytest.approx(10.0)
    batch = normal_metrics(torch.stack([p, truth.clone()[:, :, [0, 0, 0]]]), truth)
    assert batch["normals_mean"].tolist() == pytest.approx([15.0, 0.0])
    p[:, 0, 1] = 0.0
    with pytest.raises(InputError, match="moon: 1 of 2 predicted normals are zero or not finite"):
        normal_metrics(p, truth, names=["moon"])
    with pytest.raises(InputError, match="moon: the mask holds no pixel"):
        normal_metrics(p, torch.zeros_like(truth), names=["moon"])
    with pytest.raises(InputError, match="moon: sizes differ"):
        normal_metrics(p, truth[:, :, :2], names=["moon"])

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from redepth.depth_models.zoedepth import ZoeDepth, padding
from tests.support import tiny_depth_models as tiny
from tests.support.helpers import photo, relative_error


def test_what_is_padded_before_is_cut_off_after() -> None:
    model = ZoeDepth()
    image = photo(96, 160)
    assert [padding(side) for side in (96, 160, 480)] == [20, 26, 46]
    pixels = model.pixels(image)
    assert pixels.shape == (1, 3, 320, 512)
    back = model.at_image_size((0.5 * pixels + 0.5)[:, :1], 96, 160)
    assert relative_error(back, image[:, :1]) < 0.01


def test_padding_moves_borders_and_a_checkpoint_may_do_without(tmp_path: Path) -> None:
    folder = tiny.save(tiny.zoedepth(), tmp_path / "zoe")
    image = photo(64, 96)
    small = {"checkpoint": str(folder), "longer_side": 96, "resize_rule": "upper_bound"}
    padded, plain = (tiny.load("zoedepth", pad=pad, **small) for pad in (True, False))
    with torch.no_grad():
        first, second = (m.decode(m.encode(image)) for m in (padded, plain))
    assert first.shape == second.shape == (1, 1, 64, 96)
    assert relative_error(first, second) > 1e-3
    (folder / "preprocessor_config.json").write_text('{"do_pad": false}')
    assert not tiny.load("zoedepth", **small).pad


def test_each_row_of_a_batch_chooses_its_own_head(tmp_path: Path) -> None:
    """The library lets the whole batch vote; here the rows vote against each other, and each must win."""
    model = tiny.load(
        "zoedepth",
        checkpoint=str(tiny.save(tiny.zoedepth(2), tmp_path / "zoe")),
        longer_side=64,
        resize_rule="upper_bound",
        pad=False,
    )
    leads: list[float] = []
    classifier = model._decoder.metric_head.mlp_classifier
    classifier.register_forward_hook(lambda *args: leads.append(float(args[2][0, 0] - args[2][0, 1])))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        features = model.encode(photo(64, 64))
        rows = [[w + torch.randn(w.shape, generator=draw) for w in features.maps] for _ in range(2)]
        for row in rows:
            model.decode(features.with_maps(row))
        # The border between the heads now lies between the two.
        classifier.linear2.bias[0] -= sum(leads) / 2
        alone = [model.decode(features.with_maps(row)) for row in rows]
        both = [torch.cat(maps) for maps in zip(*rows, strict=True)]
        together = model.decode(features.with_maps(both))
    assert leads[2] * leads[3] < 0
    assert relative_error(*alone) > 1e-3
    for row, expected in zip(together.split(1), alone, strict=True):
        assert relative_error(row, expected) < 1e-5


def test_an_unknown_option_names_the_nearest() -> None:
    from redepth.depth_models import REGISTRY
    from redepth.errors import ConfigError

    with pytest.raises(ConfigError, match="did you mean 'pad'"):
        REGISTRY.check("zoedepth", {"padd": False})

"""CONTRIBUTING.md's recipe for a new backbone works as it is printed."""

import re

import numpy as np
import torch

import helpers as hp


def test_backbone_of_the_recipe(tmp_path, monkeypatch):
    text = (hp.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [recipe] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(recipe.splitlines()) < 15
    monkeypatch.setattr(hp, "BACKBONES", dict(hp.BACKBONES))
    exec(recipe, dict(vars(hp)))
    [name] = re.findall(r'^BACKBONES\["(\w+)"\]', recipe, re.MULTILINE)
    backbone = hp.BACKBONES[name]

    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(backbone.build(64).state_dict(), weights)
    settings = hp.Settings(
        backbone=name, weights=str(weights), image_size=64, device="cpu"
    )
    trunk = hp.load_trunk(settings)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), np.uint8)
    with torch.inference_mode():
        maps = trunk(torch.from_numpy(images))
    assert len(maps) == len(backbone.layers)
    assert [m.shape[0] for m in maps] == [2] * len(maps)
    assert maps[0].shape[-1] > maps[-1].shape[-1] > 1  # from fine to coarse
    assert all(m.isfinite().all() and m.std() > 0 for m in maps)

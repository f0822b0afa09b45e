"""CONTRIBUTING.md's recipes for a new backbone and a new covariance work as printed."""

import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from samples import small_trunk
from scipy.spatial.distance import mahalanobis

from anomaly import backbones
from anomaly.backbones import BACKBONES
from anomaly.errors import InputError
from anomaly.files import ROOT
from anomaly.settings import Settings


def section(title):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.M)[1]


def test_backbone_of_the_recipe(tmp_path, monkeypatch):
    text = section("Adding a backbone")
    [recipe] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(recipe.splitlines()) < 15 and "`anomaly/backbones.py`" in text
    [name] = re.findall(r'^BACKBONES\["(\w+)"\]', recipe, re.MULTILINE)
    monkeypatch.setitem(BACKBONES, name, None)  # undone after the test
    exec(recipe, dict(vars(backbones)))
    backbone = BACKBONES[name]
    assert Settings(backbone=name).network["name"] == name

    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(backbone.build(64).state_dict(), weights)
    trunk = small_trunk(name, weights=weights)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), np.uint8)
    with torch.inference_mode():
        maps = trunk(torch.from_numpy(images))
    assert len(maps) == len(backbone.layers)
    assert [m.shape[0] for m in maps] == [2] * len(maps)
    assert maps[0].shape[-1] > maps[-1].shape[-1] > 1  # from fine to coarse
    assert all(m.isfinite().all() and m.std() > 0 for m in maps)


def test_one_line_adds_a_resnet(monkeypatch):
    text = section("Adding a backbone")
    [(name, line)] = re.findall(r'`"(\w+)": (_resnet\(.*?\))`', text)
    monkeypatch.setitem(BACKBONES, name, eval(line, vars(backbones)))
    assert BACKBONES[name].layers == ("layer2", "layer3")
    assert "layer3" in BACKBONES[name].stages(BACKBONES[name].build(64))


BRANCH = """
    if covariance == "diagonal":
        std = features.std(0).flatten(0, 1)  # (P, D)
        return Gaussian(mean, eye, std.diag_embed())
"""


def rebuilt(monkeypatch, room, *changes):
    """A room with its text changed, in the place of the one that is there."""
    text = (ROOT / "anomaly" / f"{room}.py").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    module = ModuleType(f"anomaly.{room}")
    module.__file__ = str(ROOT / "anomaly" / f"{room}.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(text, vars(module))
    return module


def test_covariance_of_the_recipe(monkeypatch):
    text = section("Adding a covariance")
    assert "`COVARIANCES` in `anomaly/gaussian.py`" in text
    assert "`fit_gaussian(features, covariance)`" in text
    assert "`Gaussian(mean, whiten, root)`" in text
    last = "    whiten, positions = eye, h * w\n"
    room = rebuilt(
        monkeypatch,
        "gaussian",
        ('COVARIANCES = ("global",', 'COVARIANCES = ("diagonal", "global",'),
        (last, BRANCH.lstrip("\n") + last),
    )
    settings = rebuilt(monkeypatch, "settings")
    assert settings.Settings(covariance="diagonal").covariance == "diagonal"
    for call in (
        lambda: settings.Settings(covariance="x"),
        lambda: room.fit_gaussian(torch.zeros(2, 1, 1, 2), "x"),
    ):
        with pytest.raises(InputError, match="diagonal, global, position, shrunk"):
            call()

    x = torch.from_numpy(np.random.default_rng(0).normal(size=(9, 2, 3, 4)))
    found = room.fit_gaussian(x, "diagonal").score(x)  # (9, 2, 3)
    for n, i, j in np.ndindex(*found.shape):
        mean, variance = x[:, i, j].mean(0), x[:, i, j].var(0)
        expected = mahalanobis(x[n, i, j], mean, np.diag(1 / variance))
        assert found[n, i, j] == pytest.approx(expected)
    folds = room.cross_validated_scores(x, covariance="diagonal")
    assert folds.shape == found.shape and (folds > 0).all()

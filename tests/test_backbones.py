"""Which network `auto` is, and where its weights come from."""

from dataclasses import replace

import pytest
import torch
from samples import features, small_trunk

from anomaly.backbones import BACKBONES, best_backbone
from anomaly.errors import InputError
from anomaly.network import load_trunk
from anomaly.settings import Settings, resolve_backbone


def test_embedded_weights():
    trunk = small_trunk(name="efficientnet_lite2")
    x = features(trunk)
    assert x.isfinite().all() and x.std() > 0.1
    assert torch.equal(x, features(trunk))


def test_auto_with_a_file_is_the_wide_resnet(save, state, monkeypatch):
    def never(seconds):
        raise AssertionError("no download where a file is given")

    monkeypatch.setitem(
        BACKBONES,
        "wide_resnet50_2",
        replace(BACKBONES["wide_resnet50_2"], weights=never),
    )
    auto = Settings(backbone="auto", weights=save(state))
    assert resolve_backbone(auto).backbone == "wide_resnet50_2"
    with pytest.raises(InputError, match="not the weights of wide_resnet50_2"):
        load_trunk(**resolve_backbone(auto).network)


def test_auto_falls_back_and_says_so_once(offline, capsys):
    auto = Settings(backbone="auto", device="cpu")
    assert resolve_backbone(auto).backbone == "efficientnet_lite2"
    assert load_trunk(**resolve_backbone(auto).network).name == "efficientnet_lite2"
    out = capsys.readouterr().out
    assert out.count("efficientnet_lite2") == out.count("backbone auto") == 1
    assert len(offline) == 1


def test_auto_takes_cached_wide_resnet(torch_home, monkeypatch):
    monkeypatch.setattr("anomaly.weights.sha256", lambda path: "95faca4d")
    monkeypatch.setattr("anomaly.weights.urlopen", None)
    torch_home.mkdir(parents=True)
    (torch_home / "wide_resnet50_2-95faca4d.pth").write_bytes(b"")
    best_backbone.cache_clear()
    assert resolve_backbone(Settings(backbone="auto")).backbone == "wide_resnet50_2"
    best_backbone.cache_clear()

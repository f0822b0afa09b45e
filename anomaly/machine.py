"""What this machine is: device, versions, memory."""

import platform
import sys
from importlib.metadata import version

import cv2
import torch

from anomaly.errors import InputError


def pick_device(device):
    """torch.device for auto, cpu, cuda or mps; InputError if this machine lacks it."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, here in available.items() if here)
    if not available[device]:
        raise InputError(f"device={device!r}: not on this machine; use device=auto")
    return torch.device(device)


def peak_rss_mb(whose="SELF"):
    """Largest resident memory so far, in MB, of this process or one of its CHILDREN.

    None on Windows.
    """
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes here
    usage = resource.getrusage(getattr(resource, f"RUSAGE_{whose}"))
    return usage.ru_maxrss * unit / 1e6


def versions():
    """Versions of what the numbers depend on."""
    names = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pillow")
    return {"python": platform.python_version()} | {
        **{name: version(name) for name in names},
        "opencv": cv2.__version__,
    }

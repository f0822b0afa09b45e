"""What this machine is: device, versions, memory."""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import cv2
import joblib
import torch

from anomaly.errors import InputError
from anomaly.files import ROOT

BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions of x86, x86, ARM


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


def has_bfloat16(device):
    """Does this device compute in bfloat16 by itself? Emulated, it takes long."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    there = torch.cpu.get_capabilities()
    return device.type != "cpu" or any(there.get(name) for name in BFLOAT16)


@contextmanager
def one_thread_a_core():
    """A pool of as many threads as PyTorch has, each of which computes on one core.

    Threaded LAPACK takes 30 times longer for a batch of small matrices, nearly all of
    it waiting; and the last bits of a convolution depend on its number of threads.
    """
    threads, one = torch.get_num_threads(), {"initializer": torch.set_num_threads}
    pool = ThreadPoolExecutor(threads, **one, initargs=(1,))
    torch.set_num_threads(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # MKL's is the process's


def on_all_cores(work, blocks):
    """[work(block) of each], as many at once as there are cores for PyTorch."""
    with one_thread_a_core() as pool:
        return list(pool.map(work, blocks))


def filled_up(x, count):
    """x (B, …) with zeros behind it, (count, …)."""
    return torch.cat([x, x.new_zeros(count - len(x), *x.shape[1:])])


def readers():
    """A pool of threads that decode images, each of which takes memory: one a core."""
    return ThreadPoolExecutor(joblib.cpu_count())


def warn_of_another_copy():
    """Say so where the notebook stands in another copy than these rooms.

    A kernel does not know its notebook: JupyterLab names it in the environment,
    nbconvert starts in its folder, and papermill has it on its command line.
    """
    command, words = Path(f"/proc/{os.getppid()}/cmdline"), []
    if command.exists():
        words = command.read_bytes().decode(errors="replace").split("\0")
    words = [os.environ.get("JPY_SESSION_NAME", ""), *words]
    named = [Path(word) for word in words if word.endswith(".ipynb")]
    for place in named or [Path.cwd() / "notebook.ipynb"]:
        for folder in place.absolute().parents:
            if (folder / "anomaly" / "machine.py").exists() and folder != ROOT:
                print(f"This notebook stands in {folder}, but the code that is")
                print(f"installed in this environment, and runs, is that of {ROOT}.")
                return


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

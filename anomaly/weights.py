"""Weights files: downloaded with a checksum and a time limit, loaded without pickle."""

import os
import tempfile
import threading
import time
from pathlib import Path
from urllib.request import urlopen

import torch

from anomaly.errors import InputError
from anomaly.files import sha256

STALL_SECONDS = 10  # without a byte, after which a download is given up


def download_weights(url, seconds=float("inf")):
    """Path of a weights file in torch.hub's cache, fetched if it is not there.

    The eight hex digits in the file's name are the start of its SHA-256; a cached file
    that does not match was cut short, is removed and fetched again. Raises OSError
    when the file cannot be had within `seconds`, or no byte comes for STALL_SECONDS.
    """
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    digest = target.stem.split("-")[-1]
    if target.exists():
        if sha256(target).startswith(digest):
            return target
        print(f"{target} is damaged (checksum): removed, to be fetched again")
        target.unlink(missing_ok=True)
    errors, given_up, start = [], threading.Event(), time.monotonic()
    moved = [start]  # when the last bytes came

    def fetch():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                part = Path(folder) / target.name
                with (
                    urlopen(url, timeout=STALL_SECONDS) as source,
                    part.open("wb") as sink,
                ):
                    while chunk := source.read(1 << 18):
                        if given_up.is_set():
                            return
                        sink.write(chunk)
                        moved[0] = time.monotonic()
                if not sha256(part).startswith(digest):
                    raise OSError("the download is damaged (checksum)")
                os.replace(part, target)
        except Exception as error:  # what a network, or what poses as one, may do
            errors.append(error)

    # a thread of its own, because a name look-up knows no time limit
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        now = time.monotonic()
        if now - moved[0] > STALL_SECONDS or now - start > seconds:
            given_up.set()
            raise TimeoutError(f"{url}: not here within {now - start:.0f} s")
    if errors:
        raise OSError(f"{url}: {errors[0]}") from errors[0]
    return target


def load_weights(network, trunk, path):
    """Load a file into `network`, whose cut is `trunk`; InputError if unfit."""
    remedy = "download it again or choose the matching backbone"
    try:
        # weights_only: a pickle that carries code is refused, never executed
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler fed with garbage may raise anything
        raise InputError(
            f"{path}: damaged, or not a file of weights alone; {remedy}"
        ) from error
    try:
        missing = network.load_state_dict(state, strict=False).missing_keys
    except (RuntimeError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not the weights of {trunk.name}; {remedy}"
        ) from error
    # layers behind the cut may be absent, those that run may not
    used = {id(p) for p in trunk.stages.state_dict(keep_vars=True).values()}
    own = network.state_dict(keep_vars=True)
    lacking = [
        key
        for key in missing
        if id(own[key]) in used and not key.endswith("num_batches_tracked")
    ]
    if lacking:
        raise InputError(
            f"{path}: {lacking[0]} and {len(lacking) - 1} more of {trunk.name} are not "
            f"in there; {remedy}"
        )
    network.requires_grad_(False)

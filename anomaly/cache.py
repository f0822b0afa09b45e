"""Results of the stages, kept on disk."""

import atexit
import hashlib
import importlib
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import joblib

from anomaly.errors import one_line
from anomaly.files import ROOT, sha256, whole_file
from anomaly.machine import versions


@cache
def cache_folder():
    """The folder of stage results: $ANOMALY_CACHE, or .cache if that can be written."""
    wanted = os.environ.get("ANOMALY_CACHE", ROOT / ".cache")
    for folder in (ROOT / wanted, Path(os.path.expanduser(f"~/.cache/{ROOT.name}"))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            print(one_line(f"{folder}: no stage cache there ({error.strerror})"))
            continue
        return folder
    folder = tempfile.mkdtemp(prefix="anomaly-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["ANOMALY_CACHE"] = folder  # for the processes that this one starts
    print(f"stage cache for this run alone: {folder}")
    return Path(folder)


def kept(stage, key, compute):
    """What compute() returns, computed once for the same key and kept in a file.

    `stage` starts the file's name; `key` is all that the result depends on besides the
    code and the versions of what it uses, as JSON.
    Arrays come back as private maps of the file: read when they are needed, and what
    is written to them reaches nobody else.
    """
    text = json.dumps([key, code(), versions()], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    path = cache_folder() / f"{stage}-{name}.joblib"
    if path.exists():
        try:
            return joblib.load(path, mmap_mode="c")
        except (OSError, MemoryError) as error:  # another user's: no damage
            reason = getattr(error, "strerror", None) or "too large"
            print(one_line(f"{path}: cannot be read ({reason}); computed without it"))
            return compute()
        except Exception:  # what half a file makes of a decoder
            print(f"{path} is damaged: removed, to be computed again")
            path.unlink(missing_ok=True)
    result = compute()
    with whole_file(path) as part:
        joblib.dump(result, part)
    return result


def code():
    """The text of `helpers.py` and of all rooms but `report`, and their constants.

    A constant that somebody has set by hand is seen, too: it is no part of the text.
    """
    files = [ROOT / "helpers.py", *sorted((ROOT / "anomaly").glob("*.py"))]
    names = ["helpers", *(f"anomaly.{path.stem}" for path in files[1:])]
    values = {
        f"{module}.{name}": value
        for module in names
        for name, value in vars(importlib.import_module(module)).items()
        if name.isupper() and is_plain(value)
    }
    return {"files": [sha256(path) for path in files], "constants": repr(values)}


def is_plain(value):
    """Is this a number, a text, or a tuple of such? Their repr is always the same."""
    parts = value if isinstance(value, tuple) else ()
    return isinstance(value, int | float | str | tuple) and all(map(is_plain, parts))

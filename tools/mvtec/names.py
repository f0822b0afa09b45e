"""Names of folders: those of the layout, and those that cannot be."""

from anomaly.errors import InputError
from anomaly.names import fold

GOOD = {"good", "ok", "normal"}
TRUTH = {"ground_truth", "ground-truth", "ground truth", "groundtruth", "mask", "masks"}
LAYOUT = "train/good, test/good, test/<defect> and ground_truth/<defect>"
NOTICES = {"license.txt", "readme.txt"}  # a data set's licence travels with it
WINDOWS = {"con", "prn", "aux", "nul"}
WINDOWS |= {f"{port}{digit}" for port in ("com", "lpt") for digit in range(1, 10)}
LONGEST = 200  # bytes; most file systems take 255, and a number is put before it


def check_name(name: str) -> None:
    """Names must do as folder names on Windows too, and as JSON text."""
    unfit = set(name) & set('<>:"/\\|?*') or not name.isprintable()
    reserved = fold(name.split(".")[0]).strip() in WINDOWS
    too_long = len(name.encode(errors="replace")) > LONGEST
    if not name or name != name.strip(". ") or unfit or reserved or too_long:
        raise InputError(f"'{name}' cannot name a category or a defect: rename it")

"""The label file of a data set, as the tools add to it."""

import json
from pathlib import Path

from anomaly.files import write_file
from anomaly.labels import LABEL_FILE, parse_labels


def read_entries(root: Path) -> dict[str, dict]:
    """Every entry as it stands, {} where there is no file.

    Raises InputError for a file that the evaluation would refuse.
    """
    path = root / LABEL_FILE
    if not path.exists():
        return {}
    parse_labels(path)
    return json.loads(path.read_bytes().decode("utf-8-sig"))


def merge_labels(root: Path, categories, made: dict[str, dict]) -> None:
    """Write `made` in the place of all that the file says of `categories`.

    Sorted, so that the order in which categories came does not show.
    """
    stale = set(categories)
    kept = {k: v for k, v in read_entries(root).items() if category(k) not in stale}
    text = json.dumps(dict(sorted((kept | made).items())), indent=4, ensure_ascii=False)
    write_file(root / LABEL_FILE, f"{text}\n".encode())


def category(key: str) -> str:
    return key.replace("\\", "/").removeprefix("./").split("/")[0]

"""The prose of the notebooks in Chinese: one source of code, two of prose.

notebooks/zh/{notebook}.md holds the Chinese of each Markdown cell behind a line

    <!-- cell id · digest of the English -->

The digest tells when the English has changed and its Chinese has not.
"""

import hashlib
import re
from pathlib import Path

MARK = re.compile(r"^<!-- ([\w-]+) · ([0-9a-f]{8}) -->\n", re.MULTILINE)


def digest(english):
    """Eight hex digits of a cell's English."""
    return hashlib.sha256(english.strip().encode()).hexdigest()[:8]


def chinese(notebook: Path) -> dict[str, tuple[str, str]]:
    """{cell id: (digest of the English, Chinese)} of a notebook's file."""
    path = notebook.parent / "zh" / f"{notebook.stem}.md"
    parts = MARK.split(path.read_text(encoding="utf-8"))
    return {
        name: (mark, text.strip())
        for name, mark, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def translated(cells, notebook: Path):
    """The notebook's cells with Chinese prose; what has none stays English."""
    known = chinese(notebook)
    for cell in cells:
        if cell.cell_type == "markdown" and cell.id in known:
            cell.source = known[cell.id][1]
    return cells


def outdated(cells, notebook: Path) -> list[str]:
    """What is wrong with a notebook's Chinese, one line for each cell."""
    known, problems = chinese(notebook), []
    english = {cell.id: cell.source for cell in cells if cell.cell_type == "markdown"}
    for name, text in english.items():
        if name not in known:
            problems.append(f"{name}: no Chinese (digest {digest(text)})")
        elif known[name][0] != digest(text):
            problems.append(f"{name}: the English has changed ({digest(text)})")
    problems += [f"{name}: no such cell" for name in known.keys() - english.keys()]
    return problems

"""The READMEs: every command runs, and the Chinese one says what the English one says.

The commands are read out of both files, code blocks and running text, and executed in
order in a copy of the project whose data set is one tiny category, without a network.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from anomaly.files import ROOT, write_image
from anomaly.labels import LABEL_FILE
from anomaly.settings import Settings

TEXTS = [
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "README.zh-CN.md")
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:make|python|pip|\.venv/bin/\w+|[A-Z_]+=\S+) [^`]+)`")
# What is not executed as it stands: it installs, serves until it is stopped, runs what
# the next command runs, takes minutes, is this very suite, or is a form to fill in.
SUBSTITUTES = {
    "python -m venv .venv": "python -m venv --without-pip other",
    "pip install -r": "pip install --dry-run --no-index -r",
    "install --sys-prefix": "install --prefix other",
    "make lab": "make --dry-run lab",
    "make bench": "make --dry-run bench",
    "make report": "make --dry-run report | grep -x .venv/bin/python.main.py",
    "make test": "make PYTEST_ADDOPTS='--collect-only -q' test",
    "ANOMALY_FUZZ=3000": "ANOMALY_FUZZ=20",
    "python main.py --limits": "python main.py -p image_size 64 --limits",
    "promises.py -p": "promises.py -p image_size 64 -p",
    "python main.py -p name value": "python main.py --help",
}


def commands(text):
    """Of code blocks and running text, in their order, each once."""
    found = {}
    for part in re.split(r"(^```sh\n.*?^```$)", text, flags=re.MULTILINE | re.DOTALL):
        if part.startswith("```sh"):
            found |= dict.fromkeys(part.splitlines()[1:-1])
        else:
            found |= dict.fromkeys(INLINE.findall(FENCE.sub("", part)))
    return list(found)


COMMANDS = list(dict.fromkeys(commands(TEXTS[0]) + commands(TEXTS[1])))


@pytest.fixture(scope="module")
def project(tiny, tmp_path_factory):
    """A copy of the project; its .venv runs what runs these tests."""
    root = tmp_path_factory.mktemp("readme") / "project"
    leave = [".git", ".venv", ".*cache*", "__pycache__", ".hypothesis"]
    anywhere, data = shutil.ignore_patterns(*leave), {"report", "hazelnut", "zipper"}

    def ignore(folder, names):
        return anywhere(folder, names) | (data if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, root, ignore=ignore)
    shutil.copytree(tiny / "zipper", root / "zipper")
    shutil.copy(tiny / LABEL_FILE, root)
    pinned = (root / "requirements.txt").read_text(encoding="utf-8")
    assert pinned.endswith("\n-e .\n")  # no test installs the copy in its own place
    pinned = pinned.removesuffix("-e .\n")
    (root / "requirements.txt").write_text(pinned, encoding="utf-8")
    (root / ".venv" / "bin").mkdir(parents=True)
    for tool in ("python", "pip", "ruff", "pytest", "papermill", "jupyter"):
        program = shlex.quote(str(Path(sys.executable).with_name(tool)))
        script = root / ".venv" / "bin" / tool
        script.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        script.chmod(0o755)
    for stamp in ("runtime", "develop"):  # make: everything is installed
        (root / ".venv" / stamp).touch()
    add_bottle(root)
    shutil.copy(tiny / "zipper" / "test" / "001.png", root / "photo.png")
    shutil.copytree(tiny / "zipper" / "train" / "good", root / "monday")
    return root


def add_bottle(root):
    """bottle.tar.xz in MVTec AD's layout."""
    rng = np.random.default_rng(0)
    for part, count in (("train/good", 6), ("test/good", 3), ("test/broken", 13)):
        for index in range(count):
            image = rng.integers(90, 110, (48, 48, 3), np.uint8)
            if part == "test/broken":
                image[10:20, 10:30] = 250
            write_image(root / "source" / "bottle" / part / f"{index}.png", image)
    with tarfile.open(root / "bottle.tar.xz", "w:xz") as archive:
        archive.add(root / "source" / "bottle", "bottle")


def test_the_commands_are_found():
    assert {"make report", "make test", ".venv/bin/python main.py"} <= set(COMMANDS)
    for old in SUBSTITUTES:
        assert any(old in command for command in COMMANDS), old


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="make and sh")
@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs(project, command):
    for old, new in SUBSTITUTES.items():
        command = command.replace(old, new)
    environment = {
        **os.environ,
        "PYTHONPATH": str(project),  # before the project that is installed
        "PATH": f"{project / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "TORCH_HOME": str(project / "weights"),  # none are cached
        "https_proxy": "http://127.0.0.1:9",  # no network
    }
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
    )
    flagged = 3 * ("tools/score.py" in command)
    assert done.returncode in (0, flagged), done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="make and sh")
@pytest.mark.parametrize(
    "path",
    [
        "report/zipper/report.html",
        "report/zipper/report.pdf",
        "report/bottle/metrics.json",
        "report/bottle/scored/heatmap_photo.png",
        "out.ipynb",
    ],
)
def test_commands_left_what_is_promised(project, path):
    assert (project / path).stat().st_size > 500


def test_both_have_the_same_headings_and_tables():
    shapes = []
    for text in TEXTS:
        prose = FENCE.sub("", text)
        levels = re.findall(r"^#+(?= )", prose, re.MULTILINE)
        rows = [row.count("|") for row in prose.splitlines() if row.startswith("|")]
        bullets = len(re.findall(r"^- ", prose, re.MULTILINE))
        links = re.findall(r"\]\(((?!README)[^)]+)\)", prose)
        shapes.append((levels, rows, bullets, links))
    assert shapes[0] == shapes[1]
    assert len(shapes[0][0]) > 10 and len(shapes[0][1]) > 40


def test_both_have_the_same_code_blocks():
    """But for what a block says in words: after two spaces, or in braces."""
    words, blocks = re.compile(r" {2,}.*|(?<=\{)[^{}]*(?=\})", re.MULTILINE), []
    for text in TEXTS:
        found = FENCE.findall(text)
        blocks.append([b if kind == "sh" else words.sub("", b) for kind, b in found])
    assert blocks[0] == blocks[1]
    assert len(blocks[0]) > 5


def test_both_have_the_same_numbers_and_names():
    for pattern in (r"\d+(?:[.,]\d+)*", r"`[^`]+`"):
        english, chinese = (
            Counter(re.findall(pattern, FENCE.sub("", text))) for text in TEXTS
        )
        assert english - chinese == chinese - english == Counter()


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_parameters_and_defaults_are_those_of_the_settings(text):
    """In the table of parameters, whose second column is empty for an empty text."""
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) ?\|", text, re.MULTILINE))
    assert list(rows) == [field.name for field in fields(Settings)]
    for field in fields(Settings):
        if field.name != "dataset_path":  # empty is said in words
            assert rows[field.name].strip("`") == str(field.default)


@pytest.mark.parametrize("text", TEXTS, ids=["en", "zh"])
def test_links_and_files_exist(text):
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / link).exists(), link
    for name in re.findall(r"`((?:tools/)?\w+\.py)`", text):
        assert (ROOT / name).is_file(), name

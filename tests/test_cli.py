"""The command line: texts become parameters, what is wrong one line."""

import subprocess
import sys
from dataclasses import fields

import pytest

import main
from anomaly.cli import typed
from anomaly.errors import InputError
from anomaly.files import ROOT
from anomaly.settings import Settings

NAMES = [field.name for field in fields(Settings)]


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("image_size", "512", 512),
        ("sigma", "4", 4),
        ("sigma", "2.5", 2.5),
        ("image_score", "max", "max"),
        ("image_score", "0.02", 0.02),
        ("image_score", "1e-2", 0.01),
        ("category", "007", "007"),  # papermill itself would make it 7
        ("category", "true", "true"),
        ("layers", "3", "3"),
        ("seed", "12", 12),
        ("seed", "x", "x"),  # Settings says what is wrong with it
        ("sigma", "", ""),
    ],
)
def test_typed(name, text, value):
    got = typed([(name, text)])
    assert got == {name: value} and type(got[name]) is type(value)


@pytest.mark.parametrize("name", ["", "Category", "imagesize", "__class__", "data"])
def test_unknown_names_are_refused_and_the_valid_named(name):
    with pytest.raises(InputError) as caught:
        typed([(name, "1")])
    assert all(valid in str(caught.value) for valid in NAMES)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("-p image_size twelve", "image_size='twelve'"),
        ("-p image_size 16.5", "image_size=16.5"),
        ("-p image_size 8", "32 to 2048"),
        ("-p batch_size 0", "1 to 1024"),
        ("-p sigma nan", "sigma=nan"),
        ("-p sigma -1", "sigma=-1"),
        ("-p sigma 1e999", "sigma=inf"),
        ("-p image_score Max", "max, or the share"),
        ("-p image_score 1.5", "above 0 and up to 1"),
        ("-p covariance full", "global, position, shrunk"),
        ("-p backbone vgg", "auto, wide_resnet50_2, resnet18, efficientnet_lite2"),
        ("-p lang de", "en, zh"),
        ("-p device gpu", "auto, cpu, cuda, mps"),
        ("-p category ../x", "category='../x'"),
        ("-p categry zipper", "unknown parameter 'categry'"),
        ("-p visualization_dir .", "visualization_dir='.'"),
        ("-p dataset_path no/such", "no/such: not a readable folder"),
        ("--jobs 0", "--jobs 0"),
        ("--jobs two", "--jobs"),
        ("--job", "--job"),
        ("-p sigma", "-p"),
        ("zipper", "zipper"),
        ("--pdf", "--pdf"),
    ],
)
def test_main_refuses_in_one_line(capsys, arguments, said):
    assert main.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ") and err.count("\n") == 1
    assert said in err


def test_command_line(tmp_path):
    """As a user types it, from another folder."""
    command = [sys.executable, ROOT / "main.py", "-p", "image_size", "big"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: image_size='big': a whole number is needed\n"


def test_help_names_every_parameter(capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ["--no-pdf", "--jobs", *NAMES])

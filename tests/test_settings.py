"""Every parameter out of range or of the wrong type ends in one line."""

import json
import subprocess
import sys
from dataclasses import fields

import pytest

import helpers as hp
import main

NAMES = [field.name for field in fields(hp.Settings)]
HUGE = 10**400

REFUSED = {
    "category": [None, 7, True, "", ".", "..", "a/b", "a\\b", "../x", "a\nb", "\ud800"],
    "dataset_path": [None, 1, False, "a\0b", "a\x1b[2J"],
    "image_size": [31, 2049, 0, -256, HUGE, 256.0, "256", True, None, float("nan")],
    "batch_size": [0, -1, 1025, 16.0, "16", False, None],
    "device": ["", "gpu", "cuda:0", "CPU", 0, None, True],
    "precision": ["", "float16", "bf16", 16, None],
    "visualization_dir": ["", ".", "hazelnut/..", "hazelnut/test", 3, None, "a\0"],
    "backbone": ["", "resnet", "Resnet18", "resnet18,resnet18", 18, None],
    "weights": [None, 1, True, "\0"],
    "layers": [None, 3, ("layer2",), ["layer2"], True],
    "covariance": ["", "full", "Shrunk", None, 1],
    "image_score": [0, -0.1, 1.01, 2, HUGE, "", "Max", "0.02", "mean", True, None]
    + [float("nan"), float("inf")],
    "sigma": [-0.1, 100.1, float("nan"), float("inf"), -float("inf"), "4", True, None],
    "max_fpr": [0, 1, -0.1, 5, float("nan"), "0.05", True, None],
    "colormap": ["", "Jet", "rainbow", 0, None],
    "lang": ["", "de", "EN", "zh-CN", None, True],
    "seed": [-1, 2**32, 0.0, "0", True, None],
}
ACCEPTED = {
    "category": ["zipper", "榛子 & co", "nut 🌰", "<b>", "..."],
    "dataset_path": ["", "data", "/tmp/x", "~/data", "~nobody-here/x", "数据"],
    "image_size": [32, 2048],
    "batch_size": [1, 1024],
    "device": ["auto", "cpu", "cuda", "mps"],
    "precision": ["float32", "bfloat16"],
    "visualization_dir": ["report", "../out", "hazelnut-out", "/tmp/榛 🌰"],
    "backbone": ["auto", *hp.BACKBONES],
    "weights": ["", "a.pth", "~/w.pth"],
    "layers": ["", "layer1,layer3", " layer2 , layer3 ,"],
    "covariance": ["global", "position", "shrunk"],
    "image_score": ["max", 1, 1.0, 1e-9, 0.5],
    "sigma": [0, 100, 2.5],
    "max_fpr": [1e-6, 0.999],
    "colormap": list(hp.COLORMAPS),
    "lang": ["en", "zh"],
    "seed": [0, 2**32 - 1],
}


def pairs(table):
    return [(name, value) for name, values in table.items() for value in values]


def test_every_parameter_is_tested():
    assert list(REFUSED) == list(ACCEPTED) == NAMES


@pytest.mark.parametrize("name, value", pairs(REFUSED))
def test_refused(name, value):
    with pytest.raises(hp.InputError) as caught:
        hp.Settings(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}=") and message.isprintable()


@pytest.mark.parametrize("name, value", pairs(ACCEPTED))
def test_accepted(name, value):
    settings = hp.Settings(**{name: value})
    assert getattr(settings, name) == value
    assert settings.data.is_absolute() and settings.output.is_absolute()


@pytest.mark.parametrize("name", hp.CHOICES)
def test_refusal_of_a_choice_says_what_is_valid(name):
    with pytest.raises(hp.InputError) as caught:
        hp.Settings(**{name: "nonsense"})
    assert all(choice in str(caught.value) for choice in hp.CHOICES[name])


def test_whole_numbers_and_floats_make_the_same_settings():
    one = hp.Settings(sigma=4, image_score=1, max_fpr=0.5)
    other = hp.Settings(sigma=4.0, image_score=1.0, max_fpr=0.5)
    assert repr(one) == repr(other)


def test_output_may_not_go_to_the_images_by_a_link(tmp_path):
    (tmp_path / "data" / "nut").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.raises(hp.InputError, match="visualization_dir.*apart"):
        hp.Settings(
            category="nut",
            dataset_path=str(tmp_path / "data"),
            visualization_dir=str(tmp_path / "link"),
        )


def test_notebooks_have_every_parameter_with_its_default():
    default = hp.Settings()
    for path in (hp.ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        tagged = [c for c in cells if c["metadata"].get("tags") == ["parameters"]]
        names = {}
        exec("".join(tagged[0]["source"]), names)
        assert len(tagged) == 1
        assert hp.Settings.of(names) == default, path.name
        assert set(names) - {"__builtins__", "__annotations__"} == set(NAMES)


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
    typed = hp.typed([(name, text)])
    assert typed == {name: value} and type(typed[name]) is type(value)


@pytest.mark.parametrize("name", ["", "Category", "imagesize", "__class__", "data"])
def test_unknown_names_are_refused_and_the_valid_named(name):
    with pytest.raises(hp.InputError) as caught:
        hp.typed([(name, "1")])
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
    command = [sys.executable, hp.ROOT / "main.py", "-p", "image_size", "big"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: image_size='big': a whole number is needed\n"


def test_help_names_every_parameter(capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ["--no-pdf", "--jobs", *NAMES])

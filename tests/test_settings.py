"""Every parameter out of range or of the wrong type ends in one line."""

from dataclasses import fields

import pytest

from anomaly.backbones import BACKBONES
from anomaly.errors import InputError
from anomaly.settings import COLORMAPS, Settings

NAMES = [field.name for field in fields(Settings)]
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
    "backbone": ["auto", *BACKBONES],
    "weights": ["", "a.pth", "~/w.pth"],
    "layers": ["", "layer1,layer3", " layer2 , layer3 ,"],
    "covariance": ["global", "position", "shrunk"],
    "image_score": ["max", 1, 1.0, 1e-9, 0.5],
    "sigma": [0, 100, 2.5],
    "max_fpr": [1e-6, 0.999],
    "colormap": list(COLORMAPS),
    "lang": ["en", "zh"],
    "seed": [0, 2**32 - 1],
}


def pairs(table):
    return [(name, value) for name, values in table.items() for value in values]


def test_every_parameter_is_tested():
    assert list(REFUSED) == list(ACCEPTED) == NAMES


@pytest.mark.parametrize("name, value", pairs(REFUSED))
def test_refused(name, value):
    with pytest.raises(InputError) as caught:
        Settings(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}=") and message.isprintable()


@pytest.mark.parametrize("name, value", pairs(ACCEPTED))
def test_accepted(name, value):
    settings = Settings(**{name: value})
    assert getattr(settings, name) == value
    assert settings.data.is_absolute() and settings.output.is_absolute()


CHOICES = ("device", "precision", "backbone", "covariance", "colormap", "lang")


@pytest.mark.parametrize("name", CHOICES)
def test_refusal_of_a_choice_says_what_is_valid(name):
    with pytest.raises(InputError) as caught:
        Settings(**{name: "nonsense"})
    assert all(choice in str(caught.value) for choice in ACCEPTED[name])


def test_whole_numbers_and_floats_make_the_same_settings():
    one = Settings(sigma=4, image_score=1, max_fpr=0.5)
    other = Settings(sigma=4.0, image_score=1.0, max_fpr=0.5)
    assert repr(one) == repr(other)


def test_output_may_not_go_to_the_images_by_a_link(tmp_path):
    (tmp_path / "data" / "nut").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.raises(InputError, match="visualization_dir.*apart"):
        Settings(
            category="nut",
            dataset_path=str(tmp_path / "data"),
            visualization_dir=str(tmp_path / "link"),
        )

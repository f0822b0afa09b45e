"""The benchmark in little: its files hold what they promise, and agree."""

import json
from dataclasses import replace

import pytest

import benchmark
from anomaly.backbones import BACKBONES
from anomaly.dataset import load_dataset
from anomaly.labels import read_labels
from bench.table import ROWS


@pytest.fixture(scope="module")
def quick(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark")
    arguments = f"--quick --backbone resnet18 --image-size 64 --out {out}".split()
    with pytest.MonkeyPatch.context() as patch:  # a backbone without weights here
        patch.setitem(BACKBONES, "resnet18", weightless("resnet18"))
        assert benchmark.main([str(tiny), *arguments]) == 0
    return out


def weightless(name):
    def fail(seconds):
        raise OSError("no network")

    return replace(BACKBONES[name], weights=fail)


@pytest.mark.slow
def test_keys_and_rows(quick):
    result = json.loads((quick / "benchmark.json").read_text(encoding="utf-8"))
    assert result["weights"] == "random"
    names = [row["row"] for row in result["rows"]]
    assert names[: len(ROWS)] == list(ROWS)
    sizes = (("4 + 1", 64), ("8 + 2", 64), ("4 + 1", 128))
    growth = [f"fit and score, {images} images, {size} px" for images, size in sizes]
    assert names[len(ROWS) :] == growth
    assert set(result["peak_rss_mb"]) == set(names)
    assert min(result["peak_rss_mb"].values()) > 50
    seconds = {row["row"]: row["seconds"] for row in result["rows"]}
    assert min(value for name, value in seconds.items() if "stages" not in name) > 0
    floor = seconds["decode"] + seconds["forward"]
    assert result["floor_s"] == pytest.approx(floor)
    assert result["ratios"] == pytest.approx(
        {
            "fit_and_score": seconds["fit_and_score"] / floor,
            "whole_run": seconds["whole_run"] / floor,
            "whole_run_light": seconds["whole_run_light"] / seconds["floor_light"],
            "second_run": seconds["second_run"] / seconds["whole_run"],
            "scipy_over_ours_scoring": seconds["scipy_scoring"] / seconds["scoring"],
        }
    )


@pytest.mark.slow
def test_the_table_says_what_the_json_says(quick):
    result = json.loads((quick / "benchmark.json").read_text(encoding="utf-8"))
    text = (quick / "benchmark.md").read_text(encoding="utf-8")
    assert "`resnet18` with random weights" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    keys = ("seconds", "images", "ms_per_image", "over_floor", "peak_rss_mb", "runs")
    for line, row in zip(lines, result["rows"], strict=True):
        what, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        assert what == row["what"]
        for key, number in zip(keys, numbers, strict=True):
            assert float(number) == pytest.approx(row[key], rel=0.01, abs=0.5)


def test_a_wrong_category_is_one_line(tiny, capsys):
    assert benchmark.main([str(tiny), "--category", "zippr"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "did you mean 'zipper'?" in error


def test_copies_repeat_images_and_keep_their_labels(tiny, tmp_path):
    dataset = load_dataset(tiny, "hazelnut")
    labels = read_labels(dataset)
    root = benchmark.copy_images(dataset, tmp_path, 19, 21)
    copies = load_dataset(tmp_path, "hazelnut")
    assert root == str(tmp_path)
    assert (len(copies.train_good), len(copies.test)) == (19, 21)
    assert (read_labels(copies).is_bad == labels.is_bad.repeat(3)).all()
    first = [path.read_bytes() for path in copies.test[::3]]
    assert first == [path.read_bytes() for path in dataset.test]

"""The region of interest: what lies outside of it changes nothing."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from samples import encode, refusal, saved, tree

import helpers as hp
import main
import score
from anomaly import evaluation, onnx
from anomaly.baselines import memory_bank_scores
from anomaly.dataset import load_dataset
from anomaly.files import write_image
from anomaly.framing import fit_framing, with_margin
from anomaly.gaussian import COVARIANCES, PatchSums, fit_gaussian
from anomaly.images import read_image
from anomaly.labels import LABEL_FILE, Labels
from anomaly.likeness import descriptors
from anomaly.modelfile import load_model, save_model
from anomaly.onnx import Graph
from anomaly.pixels import PixelCounts
from anomaly.planted import KINDS, Defect, plant
from anomaly.roi import only_inside, read_roi
from anomaly.scores import anomaly_map, enlarged, image_scores, map_scale, top_means
from anomaly.sensitivity import features_of
from anomaly.settings import Settings

WHITE = np.full((9, 9), 255, np.uint8)
HALF = WHITE * (np.arange(9) < 4)  # the left
GRID = np.zeros((5, 6), bool)  # patches inside
GRID[1:4, 2:] = True


def with_roi(root, content, name="roi.png"):
    """The category c of a tree with such a region."""
    tree(root)
    data = content if isinstance(content, bytes) else encode(content, ".png")
    (root / "c" / name).write_bytes(data)
    return load_dataset(root, "c")


# ------------------------------------------------------------------------- the file


def rgba(colour, alpha):
    return np.dstack([*[colour] * 3, alpha])


TURNED = Image.Exif()
TURNED[0x0112] = 6
READINGS = {
    "8 bit": encode(HALF, ".png"),
    "1 bit": saved(Image.fromarray(HALF).convert("1"), "PNG"),
    "16 bit": encode(HALF.astype(np.uint16) * 257, ".png"),
    "12 of 16 bit": encode(HALF.astype(np.uint16) * 16, ".png"),
    "colour": saved(Image.fromarray(np.dstack([HALF] * 3)), "PNG"),
    "greys": encode(np.where(HALF, 128, 127).astype(np.uint8), ".png"),
    "drawn on transparent": saved(Image.fromarray(rgba(WHITE, HALF)), "PNG"),
    "turned by EXIF": saved(Image.fromarray(np.rot90(HALF)), "PNG", exif=TURNED),
}


@pytest.mark.parametrize("kind", READINGS)
def test_white_counts_however_it_is_saved(kind, tmp_path):
    dataset = with_roi(tmp_path, READINGS[kind])
    assert np.array_equal(read_roi(dataset.roi), HALF > 0)


@pytest.mark.parametrize("name", ["roi.PNG", "ROI.png"])
def test_the_region_is_listed_and_part_of_the_fingerprint(name, tmp_path):
    plain = load_dataset(tree(tmp_path / "1"), "c")
    dataset = with_roi(tmp_path / "2", HALF, name)
    assert plain.roi is None and dataset.roi.name == name
    assert dataset.remarks() == [f"{name}: 44.4% of the image count"]
    assert dataset.roi not in dataset.images
    other = with_roi(tmp_path / "3", WHITE - HALF, name)
    assert len({plain.fingerprint(), dataset.fingerprint(), other.fingerprint()}) == 3


REFUSED = {
    "wrong size": (WHITE[1:], "roi.png", "roi.png: 9x8, but "),
    "empty": (WHITE * 0, "roi.png", "roi.png: empty"),
    "of ones": (WHITE // 255, "roi.png", "brightest pixel is 1 of 255"),
    "cut short": (encode(HALF, ".png")[:60], "roi.png", "roi.png: "),
    "not an image": (b"x", "roi.png", "roi.png: cannot be read as an image"),
    "JPEG": (encode(HALF, ".jpg"), "roi.jpg", "roi.jpg: "),
    "BMP": (encode(HALF, ".bmp"), "Roi.bmp", "is read from roi.png alone"),
    "no ending": (encode(HALF, ".png"), "roi", "roi: "),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_region_that_is_not_one_is_refused_by_name(kind, tmp_path):
    content, name, said = REFUSED[kind]
    refusal(with_roi, tmp_path, content, name, names=said)
    if kind == "wrong size":
        said = refusal(load_dataset, tmp_path, "c", names="000.png is 9x9")


def test_folders_links_and_twins_are_refused_by_name(tmp_path):
    for name in ("roi.png", "roi"):
        folder = tree(tmp_path / f"folder {name}") / "c" / name
        folder.mkdir()
        refusal(load_dataset, folder.parents[1], "c", names=f"{name}: ")
    link = tree(tmp_path / "link") / "c" / "roi.png"
    link.symlink_to(tmp_path / "none")
    refusal(load_dataset, link.parents[1], "c", names="roi.png: ")
    with_roi(tmp_path / "two", HALF)
    shutil.copy(tmp_path / "two/c/roi.png", tmp_path / "two/c/ROI.PNG")
    if len(list((tmp_path / "two/c").iterdir())) == 4:  # names differ by case
        refusal(load_dataset, tmp_path / "two", "c", names="there is")


def test_notes_and_other_pictures_are_no_region(tmp_path):
    root = tree(tmp_path)
    for name in ("roi.txt", "._roi.png", "roi2.png"):
        (root / "c" / name).write_bytes(b"x")
    assert load_dataset(root, "c").roi is None


# ------------------------------------------------------------------------- patches


def test_a_patch_is_inside_by_half(tmp_path):
    """Of an image of 72 pixels the network sees the middle 64."""
    region = np.zeros((72, 72), np.uint8)
    region[4 + 16 : 4 + 36, 4 + 14 : 4 + 28] = 255
    path = tmp_path / "roi.png"
    path.write_bytes(encode(region, ".png"))
    x = torch.arange(2 * 8 * 8 * 3.0).reshape(2, 8, 8, 3)
    found = only_inside(x, path, (72, 72), 64)
    inside = np.zeros((8, 8), bool)
    inside[2:5, 2:4] = True  # of row 4, of column 3 exactly half
    inside[4, 3] = False  # a quarter
    assert np.array_equal(~found[0, ..., 0].isnan(), inside)
    assert torch.equal(found[:, inside], x[:, inside])
    assert found[:, ~inside].isnan().all()
    assert only_inside(x, None, (72, 72), 64) is x


def test_too_small_a_region_is_refused_by_name(tmp_path):
    region = np.zeros((72, 72), np.uint8)
    region[40, 40] = 255
    path = tmp_path / "roi.png"
    path.write_bytes(encode(region, ".png"))
    args = torch.zeros(1, 8, 8, 3), path, (72, 72), 64
    refusal(only_inside, *args, names="roi.png: no patch of the 8x8")
    region[:4] = 255  # in the margin alone, which the network does not see
    path.write_bytes(encode(region, ".png"))
    refusal(only_inside, *args, names="roi.png: no patch of the 8x8")


def some(count, seed=0):
    """Features of made-up images: (n, 5, 6, 7), NaN outside of GRID; and inside them.

    The latter as images of another shape (n, P, 1, 7), of what is inside alone.
    """
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, 6, 7, generator=rng) * torch.arange(1.0, 8)
    outside = torch.from_numpy(~GRID)[..., None]
    return x.masked_fill(outside, torch.nan), x[:, GRID][:, :, None]


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_fit_and_scores_are_those_of_the_inside_alone(covariance):
    (good, alone), (test, test_alone) = some(30), some(4, seed=1)
    found = fit_gaussian(good, covariance)
    expected = fit_gaussian(alone, covariance)
    distances, wanted = found.score(test), expected.score(test_alone)[..., 0]
    assert distances[:, ~GRID].isnan().all()
    torch.testing.assert_close(distances[:, GRID], wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.whiten, expected.whiten, rtol=1e-4, atol=1e-5)
    assert found.root.isfinite().all()
    whole = torch.nan_to_num(test)  # as of a new image: the mean knows the region
    assert torch.equal(found.score(whole).isnan(), distances.isnan())
    assert torch.equal(found.score(whole)[:, GRID], distances[:, GRID])


def test_the_assignments_gaussian_is_that_of_the_inside():
    (good, alone), (test, test_alone) = some(30), some(4, seed=1)
    sums, alone_sums = PatchSums(), PatchSums()
    for i in range(0, 30, 10):
        sums.add(good[i : i + 10]), alone_sums.add(alone[i : i + 10])
    found = sums.gaussian().score(test)
    wanted = alone_sums.gaussian().score(test_alone)[..., 0]
    torch.testing.assert_close(found[:, GRID], wanted, rtol=1e-4, atol=1e-4)
    assert found[:, ~GRID].isnan().all()


@pytest.mark.parametrize("image_score", ["max", 0.25, "scan"])
def test_image_scores_count_what_is_inside(image_score):
    patches = np.random.default_rng(0).random((9, 5, 6)) + 1
    alone = patches[:, GRID]
    patches[:, ~GRID] = np.nan
    usual = np.array([top_means(alone).mean(0), top_means(alone).std(0)])
    assert np.array_equal(top_means(patches), top_means(alone))
    args = image_score, usual
    found = image_scores(patches, *args)
    assert np.array_equal(found, image_scores(alone, *args)) and found.shape == (9,)
    assert image_scores(patches[:0], *args).shape == (0,)


def test_other_methods_and_likeness_see_the_inside_alone():
    (good, alone), (test, test_alone) = some(12), some(3, seed=1)
    found = memory_bank_scores(good.half(), test.half())
    assert np.array_equal(found, memory_bank_scores(alone.half(), test_alone.half()))
    rng = torch.Generator().manual_seed(2)
    other = torch.where(good.isnan(), torch.randn(good.shape, generator=rng), good)
    outside = torch.from_numpy(~GRID)[..., None]
    again = other.masked_fill(outside, torch.nan)
    z = descriptors(good)
    assert np.isfinite(z).all() and np.array_equal(z, descriptors(again))
    assert np.ptp(z, axis=0).max() > 0


# ----------------------------------------------------------------------------- maps


def test_the_map_is_zero_outside_and_moves_with_the_window():
    patches = np.where(np.eye(8) + np.eye(8)[::-1] > 0, 3, 1).astype(np.float32)
    patches[:, 4:] = np.nan
    heat = anomaly_map(patches, (64, 64), 2.0)
    assert (heat[:, 32:] == 0).all() and (heat[:, :32] >= 1 - 1e-5).all()
    moved = anomaly_map(patches, (64, 64), 2.0, (1 / 8, 0, 7 / 8, 1))
    assert (moved[:, 37:] == 0).all() and (moved[:, :35] > 0).all()
    gaps = anomaly_map(patches, (64, 64), 2.0, outside=np.nan)
    assert np.array_equal(np.isnan(gaps), heat == 0)
    assert np.array_equal(np.isnan(enlarged(gaps, (96, 128)))[0], np.arange(128) >= 64)
    plain = np.where(np.isnan(patches), patches[:, 3:4], patches)
    same = anomaly_map(plain, (64, 64), 2.0)  # the nearest counts at the border
    assert np.array_equal(same[:, :32], heat[:, :32])


def test_the_scale_is_that_of_the_inside():
    maps = np.random.default_rng(0).random((4, 16, 16)).astype(np.float32)
    gaps = np.concatenate([maps, np.full((4, 16, 20), np.nan, np.float32)], axis=2)
    assert map_scale(gaps) == map_scale(maps)


def test_pixels_outside_are_neither_normal_nor_bad(tmp_path):
    rng = np.random.default_rng(0)
    maps = rng.random((5, 40, 50)).astype(np.float32) + 1
    masks = rng.random((5, 40, 50)) > 0.9
    masks[:2] = False
    masks[2, :, :30] = False  # a defect wholly outside
    gaps = maps.copy()
    gaps[:, :, 30:] = np.nan
    found = PixelCounts.of([*zip(gaps, masks, strict=True)])
    pairs = zip(maps[..., :30], masks[..., :30], strict=True)
    expected = PixelCounts.of([*pairs])
    for name, value in vars(expected).items():
        assert np.array_equal(getattr(found, name), value), name
    with pytest.raises(ValueError, match="NaN everywhere"):
        found.add(gaps[0] * np.nan, masks[0])

    paths = []
    for i, mask in enumerate(masks):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(encode(np.uint8(255 * mask), ".png"))
    is_bad = np.array([0, 0, 1, 1, 1])
    labels = Labels(is_bad, [""] * 5, [None, None, *paths[2:]], [])
    figures = evaluation.pixel_figures(paths, lambda i, _=None: gaps[i], labels)
    assert figures["pixel_auroc"] == evaluation.pixel_auroc(found)
    threshold = hp.scores.Threshold(1.5, 0.05, 1, "")
    regions = evaluation.region_figures(
        paths, lambda i, _=None: gaps[i], labels, threshold
    )
    count = sum(cv2.connectedComponents(np.uint8(m[:, :30]))[0] - 1 for m in masks)
    assert regions["n_true_regions"] == count


@pytest.mark.parametrize("kind", KINDS)
def test_defects_are_planted_inside(kind):
    image = np.random.default_rng(0).integers(90, 99, (48, 48, 3), np.uint8)
    region = np.zeros((48, 48), bool)
    region[10:20, 30:40] = True
    for seed in range(20):
        x, y = np.array(plant(image, Defect(0, kind, 6, 0.6, seed), 2, region).place)
        assert region[int(48 * y), int(48 * x)]


# ---------------------------------------------------------------------- from folders


SIDE = 72  # with its margins, as large as it is read
RIGHT = np.zeros((SIDE, SIDE), np.uint8)
RIGHT[:, :36] = 255  # the left half counts


def picture(seed, at=None):
    """A textured normal image; with a bright square at the pixel (x, y)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    grey = 110 + 30 * np.sin(x / 5) * np.cos(y / 7) + rng.normal(0, 4, x.shape)
    if at:
        grey[at[1] : at[1] + 14, at[0] : at[0] + 14] = 250
    return np.repeat(np.uint8(grey.clip(0, 255))[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Categories c with a region, and plain without: defects left, right and none."""
    root, labels = tmp_path_factory.mktemp("roi"), {}
    tests = {"good": None, "left": (14, 30), "right": (50, 30)}
    for category in ("c", "plain"):
        folder = root / category
        for i in range(14):
            write_image(folder / f"train/good/{i:02}.png", picture(i))
        for name, at in tests.items():
            write_image(folder / f"test/{name}.png", picture(100, at))
            word = {"label": "bad" if at else "good"}
            labels[f"{category}/test/{name}.png"] = word
            if at:
                mask = np.zeros((SIDE, SIDE, 3), np.uint8)
                mask[at[1] : at[1] + 14, at[0] : at[0] + 14] = 255
                write_image(folder / f"ground_truth/{name}.png", mask)
    (root / "c/roi.png").write_bytes(encode(RIGHT, ".png"))
    (root / LABEL_FILE).write_text(json.dumps(labels))
    return root


@pytest.fixture(scope="module")
def settings(root, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("out"))

    def settings(**changes):
        tiny = {"backbone": "efficientnet_lite2", "image_size": 64, "device": "cpu"}
        fixed = {"dataset_path": str(root), "category": "c", "visualization_dir": out}
        return Settings(**{**tiny, **fixed, **changes})

    return settings


KINDS_OF_MODEL = [
    {"covariance": "shrunk"},
    {"covariance": "position", "image_score": 0.1},
    {"covariance": "global", "image_score": "max"},
]


@pytest.mark.parametrize("changes", KINDS_OF_MODEL)
def test_a_defect_outside_changes_nothing(settings, changes):
    """Not even a bit, though it lights up the image and a patch sees far."""
    names = ["good", "left", "right"]
    detection = hp.detect(settings(**changes))
    good, left, right = detection.test_scores
    assert [path.stem for path in detection.dataset.test] == names
    spread = detection.normal_scores.std()
    assert right == good and left > good + 10 * spread
    plain = hp.detect(settings(category="plain", **changes)).test_scores
    assert plain[2] > plain[0] + 10 * spread
    assert np.array_equal(detection.map(0), detection.map(2))
    outside = np.isnan(detection.test)
    assert outside[:, :, 4:].all() and not outside[:, :, :4].any()
    assert np.array_equal(outside[0], np.isnan(detection.normal[0]))
    for index in range(3):
        heat = detection.map(index)
        assert np.isfinite(heat).all() and (heat[:, 35:] == 0).all()
        assert (heat[:, :30] > 0).all()
    assert np.isfinite([*detection.scale, *detection.embedding.ravel()]).all()


def test_a_white_region_restricts_nothing(settings, root, tmp_path):
    shutil.copytree(root / "plain", tmp_path / "plain")
    write_image(tmp_path / "plain/roi.png", np.full((SIDE, SIDE, 3), 255, np.uint8))
    white = hp.detect(settings(category="plain", dataset_path=str(tmp_path)))
    plain = hp.detect(settings(category="plain"))
    assert np.array_equal(white.test, plain.test) and white.scale == plain.scale
    assert white.data_sha256 != plain.data_sha256


def test_the_evaluation_knows_one_region_and_tells_of_it(settings):
    metrics = hp.evaluate(settings())
    assert metrics["n_true_regions"] == 1 and metrics["pixel_auroc"] > 0.85
    assert hp.evaluate(settings(category="plain"))["n_true_regions"] == 2
    assert metrics["problems"] == [
        "nothing to find, outside of roi.png: right.png",
        "roi.png: 50.0% of the image count",
    ]
    assert all(np.isfinite(row["auroc"]) for row in metrics["ablation"])
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("changes", KINDS_OF_MODEL)
def test_a_model_file_keeps_the_region(settings, changes, tmp_path):
    detection = hp.detect(chosen := settings(**changes))
    save_model(tmp_path / "m.safetensors", hp.fit_model(chosen))
    model = load_model(tmp_path / "m.safetensors", device="cpu")
    patches = model.patch_scores(detection.dataset.test, "")
    assert np.array_equal(patches, detection.test, equal_nan=True)
    answers = list(model.answers(detection.dataset.test))
    assert [a.score for a in answers] == detection.test_scores.tolist()
    assert [bool(a.regions) for a in answers] == [False, True, False]
    again = model.recalibrated(detection.dataset.train_good)
    assert np.isfinite(again.threshold.value)
    x = features_of(model, [picture(0)], "")
    assert torch.equal(x[..., 0].isnan(), torch.from_numpy(np.isnan(patches[:1])))


def test_a_model_without_any_patch_is_damaged(settings, tmp_path):
    model = hp.fit_model(settings())
    nothing = torch.full_like(model.gaussian.mean, torch.nan)
    nothing = replace(model, gaussian=replace(model.gaussian, mean=nothing))
    save_model(tmp_path / "m.safetensors", nothing)
    refusal(load_model, tmp_path / "m.safetensors", names="damaged")


@pytest.mark.parametrize("changes", KINDS_OF_MODEL)
def test_the_graph_says_what_the_model_says(settings, changes):
    model = hp.fit_model(settings(**changes))
    paths = hp.detect(model.settings).dataset.test
    windows = np.stack([model.framing.apply(read_image(path))[0] for path in paths])
    distances = model._score(windows)[1]
    args = (model.framing.size,) * 2, model.settings.sigma
    maps = np.stack([anomaly_map(d, *args) for d in distances])
    with torch.inference_mode():
        found = Graph(model).eval()(torch.from_numpy(windows))
    expected = distances, model.image_scores(distances), maps
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_onnx_file_says_what_the_graph_says(settings, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = hp.fit_model(settings())
    onnx.save_onnx(tmp_path / "m.onnx", model)
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
    paths = hp.detect(model.settings).dataset.test
    windows = np.stack([model.framing.apply(read_image(path))[0] for path in paths])
    with torch.inference_mode():
        expected = Graph(model).eval()(torch.from_numpy(windows))
    for got, wanted in zip(
        session.run(None, {"window": windows}), expected, strict=True
    ):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-3, atol=1e-3)


def test_the_command_scores_inside_alone(settings, root, tmp_path, capsys):
    names = ("dataset_path", "category", "image_size", "backbone", "visualization_dir")
    arguments, chosen = [], settings()
    for name in names:
        arguments += ["-p", name, str(getattr(chosen, name))]
    answers = tmp_path / "a.json"
    options = ["--json", str(answers), "--out", str(tmp_path)]
    assert score.main([str(root / "c/test"), *arguments, *options]) == 3
    found = json.loads(answers.read_text())["images"]
    assert [image["decision"] for image in found] == ["good", "bad", "good"]
    for image in found:
        for region in image["regions"]:
            assert max(x for x, _ in region["contour"]) < SIDE / 2 + 2
    panel = cv2.imread(str(tmp_path / "heatmap_right.png"))
    heat = panel[:, 64 + 4 : 128 + 4]
    assert (heat[:, 40:] == heat[0, 63]).all()  # the coldest colour


def test_a_refitted_model_keeps_the_region(settings, root):
    chosen = settings()
    model = score.refitted(chosen, [root / "c/test/good.png"])
    expected = hp.fit_model(chosen)
    assert np.array_equal(model.framing.region, expected.framing.region)
    there, before = (~m.gaussian.mean.isnan() for m in (model, expected))
    assert torch.equal(there, before) and not there.all()


def test_place_and_light_are_those_of_the_region(tmp_path):
    roi = tmp_path / "roi.png"
    roi.write_bytes(encode(RIGHT, ".png"))
    side = SIDE - 4
    assert with_margin(side) == RIGHT.shape
    framing = fit_framing([picture(i) for i in range(8)], side, roi=roi)
    normal = picture(100)
    lit = normal.copy()
    lit[:, 40:] = picture(7)[::-1, 40:] // 2 + 120  # another lamp, elsewhere
    for move in (0, 2):  # to the right, and the region with it
        image, region = (np.roll(x, move, axis=1) for x in (normal, RIGHT > 0))
        changed = framing.look(np.where(region[..., None], image, lit))
        for found, expected in zip(changed, framing.look(image), strict=True):
            assert np.array_equal(found, expected)
        assert changed[2][0] == move
    blank = np.full_like(normal, 90)
    assert (framing.look(blank)[2][:2] == 0).all()
    flat = fit_framing([blank] * 3, side, roi=roi)
    assert np.isfinite(flat.seen).all() and (flat.seen[:, :2] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("covariance", ["shrunk", "global"])
def test_all_notebooks_run_with_a_region(tiny, tmp_path, covariance):
    """A thin one, of a column of patches."""
    shutil.copytree(tiny, tmp_path / "data")
    region = np.zeros((64, 64), np.uint8)
    region[:, 28:36] = 255
    (tmp_path / "data/zipper/roi.png").write_bytes(encode(region, ".png"))
    values = {"dataset_path": tmp_path / "data", "category": "zipper"}
    values |= {"image_size": 64, "backbone": "efficientnet_lite2"}
    values |= {"visualization_dir": tmp_path / "out", "covariance": covariance}
    arguments = ["--no-pdf", "--limits"]
    for name, value in values.items():
        arguments += ["-p", name, str(value)]
    assert main.main(arguments) == 0
    metrics = json.loads((tmp_path / "out/zipper/metrics.json").read_text())
    assert "roi.png: 12.5% of the image count" in metrics["problems"]

"""The exercises: the change that each asks for, and the answer's direction."""

import matplotlib
import nbformat
import numpy as np

from anomaly.files import ROOT
from anomaly.gaussian import SHRINKAGE

matplotlib.use("agg")


def play(notebook, parameters, *changes, until=None):
    """The variables of a notebook whose cells have run up to cell `until`.

    Each change (old, new) is made in the one cell that holds the old text, as a
    student would make it.
    """
    path = next((ROOT / "notebooks").glob(f"{notebook}_*.ipynb"))
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    for old, new in changes:
        (cell,) = [cell for cell in code if old in cell.source]
        cell.source = cell.source.replace(old, new)
    variables = {"__name__": "__main__"}
    for cell in code:
        exec(cell.source, variables)
        if "parameters" in cell.metadata.get("tags", []):
            variables |= parameters
        if cell.id == until:
            break
    return variables


def small(data, **more):
    """The parameters of a notebook on a tiny data set."""
    common = {"backbone": "efficientnet_lite2", "image_size": 64, "device": "cpu"}
    return {"dataset_path": str(data), **common, **more}


# ------------------------------------------------------------------------------ 01


def test_the_zipper_varies_less_from_image_to_image(tiny):
    left = {
        category: play("01", small(tiny, category=category), until="aligned")["left"]
        for category in ("hazelnut", "zipper")
    }
    assert left["zipper"] < left["hazelnut"]


def test_brightness_does_not_see_shuffled_rows(tiny):
    grey = "    grey = image.mean(axis=2)"
    shuffle = "    image = np.random.default_rng(0).permutation(image)\n"
    before, after = (
        play("01", small(tiny), *changes, until="brightness")["clouds"]
        for changes in ([], [(grey, shuffle + grey)])
    )
    for name, cloud in before.items():
        assert np.allclose(cloud, after[name])


# ------------------------------------------------------------------------------ 02


def test_an_early_layer_has_the_finer_grid_and_the_shorter_vectors(tiny):
    early, late = (
        play("02", small(tiny, layers=layer), until="joined")["x"].shape
        for layer in ("stage2", "stage5")
    )
    assert early[0] > late[0] and early[1] > late[1]
    assert early[2] < late[2]


def test_chosen_numbers_keep_distances_worse_than_mixtures(tiny):
    mixed = "    return q * np.sign(np.diag(r))"
    chosen = "    return np.eye(dim)[:, :k]"
    check = "assert np.allclose(Q, semi_orthogonal"
    changes = [(mixed, chosen), (check, "# " + check)]
    before, after = (
        play("02", small(tiny), *made, until="distances")["ratios"]
        for made in ([], changes)
    )
    for k in before:  # how far from one a ratio is
        assert np.abs(after[k] - 1).mean() > np.abs(before[k] - 1).mean()


# ------------------------------------------------------------------------------ 03


def test_a_small_alpha_lowers_the_right_end_and_lengthens_distances(tiny):
    change = ("alpha = SHRINKAGE", "alpha = 0.01")
    before, after = (
        play("03", small(tiny), *changes, until="eigenvalues")
        for changes in ([], [change])
    )
    ends = [run["spectra"]["shrunk"][-1] for run in (before, after)]
    assert ends[1] < ends[0]
    assert (after["by_factor"] > before["by_factor"]).all()
    most = np.sqrt(SHRINKAGE / 0.01)
    assert (after["by_factor"] < most * before["by_factor"]).all()


def test_fewer_images_lower_the_rank_and_raise_rho(tiny):
    change = ("good[:60, ::2, ::2]", "good[:4, ::2, ::2]")
    before, after = (
        play("03", small(tiny), *changes, until="oas") for changes in ([], [change])
    )
    for run, n in ((before, 8), (after, 4)):
        assert run["n"] == n
        assert np.linalg.matrix_rank(run["sample"]) == n - 1
    assert after["rho"] > before["rho"]

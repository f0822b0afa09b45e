"""The stage cache: computed once, whole or absent, and never stale."""

import ast
import importlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

import helpers as hp
from anomaly import cache, gaussian
from anomaly.cache import cache_folder, code, is_plain, kept
from anomaly.errors import InputError
from anomaly.files import PART, ROOT

CONSTANTS = ast.literal_eval(code()["constants"])  # no address that changes by the run


# --------------------------------------------------------------------------- files


def test_kept_is_computed_once_for_a_key_and_nobody_changes_it(cold_cache):
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(3)}

    first, again = (kept("stage", {"a": 1, "b": 2}, compute) for _ in range(2))
    kept("stage", {"b": 2, "a": 1}, compute)  # the order is no matter
    assert len(calls) == 1 and isinstance(again["x"], np.memmap)
    again["x"][:] = 9  # in memory alone
    np.testing.assert_array_equal(
        first["x"], kept("stage", {"a": 1, "b": 2}, None)["x"]
    )
    kept("stage", {"a": 1, "b": 3}, compute)
    kept("other", {"a": 1, "b": 2}, compute)
    assert len(calls) == 3
    stages = sorted(path.name.split("-")[0] for path in cold_cache.iterdir())
    assert stages == ["other", "stage", "stage"]


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_damaged_file_is_computed_again(cold_cache, capsys, content):
    kept("stage", {}, lambda: list(range(999)))
    [path] = cold_cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert kept("stage", {}, lambda: "anew") == "anew"
    assert "is damaged: removed" in capsys.readouterr().out
    assert kept("stage", {}, None) == "anew"


def test_a_stage_that_fails_leaves_nothing(cold_cache):
    def fail():
        raise InputError("no")

    with pytest.raises(InputError):
        kept("stage", {}, fail)
    assert list(cold_cache.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_replaced_by_another(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ANOMALY_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache_folder.cache_clear()
    assert cache_folder() == tmp_path / "home/.cache" / ROOT.name
    (tmp_path / "home2").write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path / "home2"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache_folder.cache_clear()
    assert cache_folder().name.startswith("anomaly-cache-")
    out = capsys.readouterr().out
    assert out.count("no stage cache there") == 3 and "for this run alone" in out
    cache_folder.cache_clear()


# --------------------------------------------------------- what a result depends on


@pytest.fixture
def key(tiny_settings, monkeypatch):
    """The key under which a stage looks for its result."""

    def key():
        with monkeypatch.context() as patch:
            patch.setattr(hp, "kept", lambda stage, key, compute: [key, code()])
            return hp.steadiness(tiny_settings())

    return key


def changed(value):
    if isinstance(value, tuple):
        return value[:-1]
    return value + "x" if isinstance(value, str) else value * 2


def test_constants_of_all_rooms_are_seen():
    assert {"anomaly.gaussian.RIDGE", "anomaly.network.CPU_PIXELS"} < set(CONSTANTS)
    for path in (ROOT / "anomaly").glob("*.py"):
        module = importlib.import_module(f"anomaly.{path.stem}")
        own = {
            f"{module.__name__}.{name}"
            for name, value in vars(module).items()
            if name.isupper() and is_plain(value)
        }
        assert own <= set(CONSTANTS) or path.stem == "__init__"


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_set_by_hand_makes_another_key(name, key, monkeypatch):
    before, (module, constant) = key(), name.rsplit(".", 1)
    with monkeypatch.context() as patch:
        module = importlib.import_module(module)
        patch.setattr(module, constant, changed(CONSTANTS[name]))
        assert key() != before
    assert key() == before


def test_nothing_stale_after_a_constant_was_set_by_hand(
    tiny_settings, cold_cache, monkeypatch
):
    untouched = hp.detect(tiny_settings())
    with monkeypatch.context() as patch:
        patch.setattr(gaussian, "RIDGE", 1e-1)
        hp.detect(tiny_settings())
    assert len(list(cold_cache.glob("detect-*"))) == 2
    again = hp.detect(tiny_settings())
    np.testing.assert_array_equal(again.test_scores, untouched.test_scores)
    shutil.rmtree(cold_cache)
    cold_cache.mkdir()
    anew = hp.detect(tiny_settings())
    np.testing.assert_array_equal(anew.test_scores, untouched.test_scores)
    assert anew.threshold == untouched.threshold


@pytest.mark.parametrize(
    "path, counts",
    [
        ("helpers.py", True),
        ("anomaly/gaussian.py", True),
        ("anomaly/new_room.py", True),
        ("anomaly/report/plots.py", False),
        ("anomaly/report/new_room.py", False),
        ("main.py", False),
    ],
)
def test_a_changed_room_counts_unless_it_draws(path, counts, tmp_path, monkeypatch):
    shutil.copy(ROOT / "helpers.py", tmp_path)
    shutil.copytree(ROOT / "anomaly", tmp_path / "anomaly")
    monkeypatch.setattr(cache, "ROOT", tmp_path)
    find = importlib.import_module
    monkeypatch.setattr(
        cache.importlib, "import_module", lambda n: cache if "new_" in n else find(n)
    )
    before, file = code()["files"], tmp_path / path
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as text:
        text.write("\n# a change\n")
    assert (code()["files"] != before) == counts


def test_half_written_files_are_not_results(cold_cache):
    cold_cache.mkdir(exist_ok=True)
    Path(cold_cache / f"{PART}1").write_bytes(b"half")
    assert kept("stage", {}, lambda: 1) == 1

"""Files are whole or absent, and a digest is read once for as long as it holds."""

import os
import time

import numpy as np
import pytest

from anomaly import files
from anomaly.errors import InputError
from anomaly.files import PART, fingerprint, sha256, sweep, whole_file, write_file
from anomaly.files import write_image as write
from anomaly.images import read_image


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_written_whole_in_a_new_folder(tmp_path):
    write_file(tmp_path / "a/b/c", b"1")
    write_file(tmp_path / "a/b/c", b"22")
    assert (tmp_path / "a/b/c").read_bytes() == b"22" and names(tmp_path) == ["c"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_the_file_before(tmp_path, error):
    path = tmp_path / "c"
    write_file(path, b"before")
    with pytest.raises(error), whole_file(path) as part:
        part.write_bytes(b"ha")
        raise error
    assert path.read_bytes() == b"before" and names(tmp_path) == ["c"]


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="file/c: cannot be written .*another folder"):
        write_file(tmp_path / "file/c", b"")


def test_an_image_comes_back_as_it_was(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    write(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


def test_sweep_takes_old_parts_alone(tmp_path):
    old, folder, young, other = (tmp_path / f"{PART}{i}" for i in range(4))
    other = tmp_path / "result"
    folder.mkdir()
    for path in (old, folder / "x", young, other):
        path.write_bytes(b"")
    for path in (old, folder, other):
        os.utime(path, (time.time() - 4000,) * 2)
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([young, other])


def test_a_digest_is_read_once_until_the_file_changes(tmp_path, monkeypatch):
    path, read = tmp_path / "a", []
    digest = files.hashlib.file_digest
    monkeypatch.setattr(
        files.hashlib, "file_digest", lambda *a: read.append(1) or digest(*a)
    )
    path.write_bytes(b"1")
    first = sha256(path)
    assert first == sha256(path) and len(read) == 1
    path.write_bytes(b"22")
    assert sha256(path) != first and len(read) == 2


def test_fingerprint_of_a_file_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(InputError, match="gone: cannot be read"):
        fingerprint(tmp_path, [tmp_path / "gone"])

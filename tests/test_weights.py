"""Backbones and their weights: files of every kind, networks that do not answer."""

import hashlib
import io
import os
import pickle
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import helpers as hp
import main

SHARED = Path(os.environ.get("ANOMALY_SHARED", hp.ROOT.parent / "shared"))
REAL = SHARED / "weights" / "resnet18-trunk.pth"


def settings(**changes):
    options = {"backbone": "resnet18", "image_size": 64, "device": "cpu"}
    return hp.Settings(**{**options, **changes})


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return hp.BACKBONES["resnet18"].build(64).state_dict()


@pytest.fixture
def save(tmp_path):
    def save(content, name="weights.pth"):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        return str(path)

    return save


def features(trunk):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    return hp.patch_features(trunk, images)


# ---------------------------------------------------------------------- precision


@pytest.mark.parametrize("name", hp.BACKBONES)
def test_bfloat16_is_close_and_not_the_same(name, save):
    torch.manual_seed(0)
    weights = save(hp.BACKBONES[name].build(64).state_dict())
    full, low = (
        features(hp.load_trunk(settings(backbone=name, weights=weights, precision=p)))
        for p in ("float32", "bfloat16")
    )
    assert full.dtype == low.dtype == torch.float32
    error = (low - full).norm() / full.norm()
    assert 1e-4 < error < 0.03


def test_stages_know_the_precision(tiny_settings):
    full, low = (
        hp.detect(tiny_settings(precision=p)).test_scores
        for p in ("float32", "bfloat16")
    )
    assert not np.array_equal(full, low)
    np.testing.assert_allclose(full, low, rtol=0.05)


def test_on_a_cpu_few_pixels_at_once_whatever_the_batch(save, state):
    weights, given = save(state), []
    trunk = hp.load_trunk(settings(weights=weights, image_size=256))
    trunk.register_forward_pre_hook(lambda _, images: given.append(len(images[0])))
    hp.patch_features(trunk, np.zeros((6, 256, 256, 3), np.uint8))
    assert given == [4, 2]


# ------------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    "layers, taps",
    [
        ("", ("layer2", "layer3")),
        ("layer1", ("layer1",)),
        ("layer3, layer1,", ("layer1", "layer3")),  # in the network's order
        ("layer2,layer2", ("layer2",)),
        ("conv1,layer4", ("conv1", "layer4")),
    ],
)
def test_layers(save, state, layers, taps):
    trunk = hp.load_trunk(settings(layers=layers, weights=save(state)))
    assert trunk.taps == taps
    assert list(trunk.stages)[-1] == taps[-1]  # cut behind the last
    assert features(trunk).isfinite().all()


@pytest.mark.parametrize("backbone", hp.BACKBONES)
@pytest.mark.parametrize(
    "layer", ["layer9", "fc", "avgpool", "layer2.0", "Layer2", "5"]
)
def test_layers_that_the_backbone_lacks(backbone, layer):
    with pytest.raises(hp.InputError) as caught:
        hp.load_trunk(settings(backbone=backbone, layers=f"{layer},"))
    stages = hp.BACKBONES[backbone].stages(hp.BACKBONES[backbone].build(64))
    message = str(caught.value)
    assert f"{backbone} has no {layer}" in message
    assert all(stage in message for stage in stages)


# -------------------------------------------------------------------- weights files


class Attack:
    """Unpickled by a careless reader, it runs code."""

    def __reduce__(self):
        return (os.mkdir, ("attacked",))


def truncated(state, share):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()[: int(len(buffer.getvalue()) * share)]


WRONG = {
    "empty": lambda state: b"",
    "text": lambda state: b"404: not found",
    "html": lambda state: b"<!DOCTYPE html><html></html>",
    "cut short": lambda state: truncated(state, 0.5),
    "cut by a little": lambda state: truncated(state, 0.999),
    "start alone": lambda state: truncated(state, 0.001),
    "old pickle": lambda state: pickle.dumps(state),
    "code": lambda state: {**state, "fc.bias": Attack()},
    "nothing but code": lambda state: pickle.dumps(Attack()),
    "a whole network": lambda state: hp.BACKBONES["resnet18"].build(64),
    "a list": lambda state: list(state.values()),
    "a tensor": lambda state: torch.zeros(3),
    "a number": lambda state: 3,
    "no weights": lambda state: {},
    "nested": lambda state: {"state_dict": state},
    "numbers for tensors": lambda state: dict.fromkeys(state, 1.0),
    "numbers for names": lambda state: dict(enumerate(state.values())),
    "another network": lambda state: (
        hp.BACKBONES["efficientnet_lite2"].build(64).state_dict()
    ),
    "another width": lambda state: {**state, "layer2.0.conv1.weight": torch.ones(9)},
    "one tapped layer gone": lambda state: {
        key: value for key, value in state.items() if "layer3.1.conv2" not in key
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_weights_are_refused_by_name(save, state, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = save(WRONG[name](state))
    with pytest.raises(hp.InputError) as caught:
        hp.load_trunk(settings(weights=path))
    message = str(caught.value)
    assert message.startswith(path) and "choose the matching backbone" in message
    assert message.isprintable() and len(message) < 300
    assert not (tmp_path / "attacked").exists()


def test_the_attack_would_work(tmp_path, monkeypatch):
    """Else the test above showed nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Attack()))
    assert (tmp_path / "attacked").exists()


@pytest.mark.parametrize("name", ["no-such.pth", ".", "~/no-such.pth"])
def test_weights_that_are_no_file(name, tiny_settings):
    wrong = tiny_settings(weights=name, backbone="resnet18")
    for stage in (hp.load_trunk, hp.detect, hp.extract_features):
        with pytest.raises(hp.InputError, match="^weights='.*there is no file"):
            stage(wrong)


def test_layers_behind_the_cut_may_be_absent(save, state):
    cut = {k: v for k, v in state.items() if not k.startswith(("layer4", "fc"))}
    whole = hp.load_trunk(settings(weights=save(state, "whole.pth")))
    assert torch.equal(
        features(hp.load_trunk(settings(weights=save(cut)))), features(whole)
    )
    with pytest.raises(hp.InputError, match="layer4.*are not in there"):
        hp.load_trunk(settings(weights=save(cut), layers="layer4"))


def test_auto_with_a_file_is_the_wide_resnet(save, state, monkeypatch):
    def never(seconds):
        raise AssertionError("no download where a file is given")

    monkeypatch.setitem(
        hp.BACKBONES,
        "wide_resnet50_2",
        hp.replace(hp.BACKBONES["wide_resnet50_2"], weights=never),
    )
    auto = settings(backbone="auto", weights=save(state))
    assert hp.resolve_backbone(auto).backbone == "wide_resnet50_2"
    with pytest.raises(hp.InputError, match="not the weights of wide_resnet50_2"):
        hp.load_trunk(auto)


@pytest.mark.skipif(not REAL.exists(), reason="no real weights here")
def test_real_weights():
    trunk = hp.load_trunk(settings(weights=str(REAL)))
    x = features(trunk)  # (2, 8, 8, 128 + 256)
    assert x.shape == (2, 8, 8, 384) and x.isfinite().all()
    assert not any(p.requires_grad for p in trunk.parameters())
    assert not trunk.training
    with pytest.raises(hp.InputError, match="not the weights of wide_resnet50_2"):
        hp.load_trunk(settings(backbone="wide_resnet50_2", weights=str(REAL)))


def test_embedded_weights():
    trunk = hp.load_trunk(settings(backbone="efficientnet_lite2"))
    x = features(trunk)
    assert x.isfinite().all() and x.std() > 0.1
    assert torch.equal(x, features(trunk))


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_device_that_is_not_there(device):
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
        pytest.skip(f"{device} is there")
    with pytest.raises(hp.InputError, match=f"device='{device}'.*device=auto"):
        hp.pick_device(device)


# ---------------------------------------------------------------------- downloads

BODY = os.urandom(3 << 18)
NAME = f"net-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def server():
    """server(behaviour) serves on this machine; the URL that it returns ends in NAME.

    A list is sent piece by piece, a number in it is a pause; None: silence for good.
    """
    stop, servers = Event(), []

    def start(pieces, name=NAME):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if pieces is None:
                    stop.wait(60)
                    return
                self.send_response(200 if pieces else 404)
                self.send_header("Content-Length", str(len(BODY)))
                self.end_headers()
                for piece in pieces:
                    if not isinstance(piece, bytes):
                        stop.wait(piece)
                    else:
                        self.wfile.write(piece)

            def log_message(self, *arguments):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/{name}"

    yield start
    stop.set()
    for each in servers:
        each.shutdown()
        each.server_close()


def only_file(folder):
    [path] = folder.iterdir()  # nothing half-written beside it
    return path


def test_download_goes_to_torch_home_and_is_fetched_once(torch_home, server):
    url = server([BODY])
    path = hp.download_weights(url)
    assert path == torch_home / NAME == only_file(torch_home)
    assert path.read_bytes() == BODY
    assert hp.download_weights("http://127.0.0.1:1/" + NAME) == path


def test_cached_file_that_was_cut_short(torch_home, server, capsys):
    torch_home.mkdir(parents=True)
    (torch_home / NAME).write_bytes(BODY[:-1])
    hp.download_weights(server([BODY]))
    assert f"{NAME} is damaged (checksum): removed" in capsys.readouterr().out
    assert only_file(torch_home).read_bytes() == BODY


def test_cached_file_that_was_cut_short_without_a_network(torch_home, capsys):
    torch_home.mkdir(parents=True)
    (torch_home / NAME).write_bytes(BODY[:-1])
    with pytest.raises(OSError, match="refused"):
        hp.download_weights("http://127.0.0.1:1/" + NAME)
    assert "removed" in capsys.readouterr().out
    assert not list(torch_home.iterdir())


@pytest.mark.parametrize(
    "pieces, said",
    [
        ([], "404"),
        ([BODY[:-100]], "checksum"),
        ([BODY[::-1]], "checksum"),
        ([BODY[:1000], BODY[1000:-2], b"!!"], "checksum"),
    ],
)
def test_bad_download_leaves_nothing(torch_home, server, pieces, said):
    with pytest.raises(OSError, match=said):
        hp.download_weights(server(pieces))
    assert not list(torch_home.iterdir())


def test_something_that_is_no_web_server(torch_home):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            client, _ = listener.accept()
            client.sendall(b"\x00\xff hello\r\n\r\n")
            client.close()

        Thread(target=answer, daemon=True).start()
        with pytest.raises(OSError, match=NAME):
            hp.download_weights(f"http://127.0.0.1:{listener.getsockname()[1]}/{NAME}")


def test_silence_is_given_up(torch_home, server, monkeypatch):
    monkeypatch.setattr(hp, "STALL_SECONDS", 0.5)
    for url in (server(None), server([BODY[:1000], 60, BODY[1000:]])):
        start = time.monotonic()
        with pytest.raises(OSError):
            hp.download_weights(url)
        assert time.monotonic() - start < 3


def test_name_look_up_that_hangs(torch_home, monkeypatch):
    monkeypatch.setattr(hp, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: time.sleep(30))
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="not here within"):
        hp.download_weights(f"http://weights.invalid/{NAME}")
    assert time.monotonic() - start < 3
    assert hp.STALL_SECONDS < hp.AUTO_SECONDS <= 10


def test_slow_download_is_awaited_if_asked_for_and_not_by_auto(torch_home, server):
    pieces = [
        x for i in range(0, len(BODY), 1 << 17) for x in (BODY[i:][: 1 << 17], 0.2)
    ]
    with pytest.raises(TimeoutError):
        hp.download_weights(server(pieces), 0.3)
    assert hp.download_weights(server(pieces)).read_bytes() == BODY


def test_torch_home_that_cannot_be_written(tmp_path, monkeypatch, server):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError):
        hp.download_weights(server([BODY]))


# --------------------------------------------------------------------- no network


@pytest.fixture
def offline(torch_home, monkeypatch):
    """No weights cached, and every connection refused; the count of attempts."""
    attempts = []

    def refuse(url, timeout):
        attempts.append(url)
        raise OSError("no network")

    monkeypatch.setattr(hp, "urlopen", refuse)
    hp._best_backbone.cache_clear()
    yield attempts
    hp._best_backbone.cache_clear()


def test_auto_falls_back_and_says_so_once(offline, capsys):
    auto = settings(backbone="auto")
    assert hp.resolve_backbone(auto).backbone == "efficientnet_lite2"
    assert hp.load_trunk(auto).name == "efficientnet_lite2"
    out = capsys.readouterr().out
    assert out.count("efficientnet_lite2") == out.count("backbone auto") == 1
    assert len(offline) == 1


def test_auto_takes_cached_wide_resnet(torch_home, monkeypatch):
    monkeypatch.setattr(hp, "_sha256", lambda path: "95faca4d")
    monkeypatch.setattr(hp, "urlopen", None)
    torch_home.mkdir(parents=True)
    (torch_home / "wide_resnet50_2-95faca4d.pth").write_bytes(b"")
    hp._best_backbone.cache_clear()
    assert hp.resolve_backbone(settings(backbone="auto")).backbone == "wide_resnet50_2"
    hp._best_backbone.cache_clear()


def test_wide_resnet_without_network_is_one_line(offline, tiny, tmp_path, capsys):
    arguments = ["-p", "backbone", "wide_resnet50_2", "-p", "dataset_path", str(tiny)]
    arguments += ["-p", "visualization_dir", str(tmp_path / "out"), "--no-pdf"]
    start = time.monotonic()
    assert main.main(arguments) == 2
    assert time.monotonic() - start < 20
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "wide_resnet50_2: its weights are neither cached nor" in err
    assert "weights=" in err and "backbone=auto" in err
    assert "Traceback" in (tmp_path / "out" / "error.log").read_text()


def test_wide_resnet_behind_a_dead_resolver(tiny, tmp_path):
    """The real thing in a process of its own: it ends in time and leaves nothing."""
    code = f"""
import socket, sys, time
socket.getaddrinfo = lambda *args, **more: time.sleep(60)
import main
print(time.monotonic())
status = main.main({["-p", "backbone", "wide_resnet50_2", "-p", "category", "zipper"]}
    + ["-p", "dataset_path", {str(tiny)!r}, "-p", "visualization_dir", "{tmp_path}"])
print(time.monotonic())
sys.exit(status)
"""
    environment = {**os.environ, "TORCH_HOME": str(tmp_path / "torch")}
    environment = {k: v for k, v in environment.items() if "proxy" not in k.lower()}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=hp.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    first, *_, last = done.stdout.split("\n")[:-1]
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert float(last) - float(first) < 20
    assert not list((tmp_path / "torch" / "hub" / "checkpoints").iterdir())


# ------------------------------------------------------------------------- memory


def small_memory(most):
    """A trunk on a device that holds `most` images at once, and what it was given."""
    given = []

    def forward(images):
        given.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [images[:, :, ::8, ::8].float()]

    class Small:
        limit = hp.Trunk.limit
        mean = torch.zeros(1)

        def __call__(self, images):
            return forward(images)

    return Small(), given


def test_batch_is_halved_when_memory_runs_out(capsys):
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
    trunk, given = small_memory(3)
    first, second = (hp.patch_features(trunk, images) for _ in range(2))
    assert torch.equal(first, hp.patch_features(small_memory(10)[0], images))
    assert torch.equal(first, second)
    assert given == [10, 5] + 2 * [2, 2, 2, 2, 2]  # and stays so
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "memory of cpu is full: batches of 5 from here on"
    assert lines[1] == "memory of cpu is full: batches of 2 from here on"


def test_memory_too_small_for_one_image():
    trunk, given = small_memory(0)
    with pytest.raises(hp.InputError, match="smaller image_size"):
        hp.patch_features(trunk, np.zeros((4, 16, 16, 3), np.uint8))
    assert given == [4, 2, 1]


def test_other_faults_of_the_network_are_not_taken_for_memory():
    def broken(images):
        raise RuntimeError("shapes")

    trunk = SimpleNamespace(limit=4)
    trunk = type("Broken", (), {"limit": 4, "mean": torch.zeros(1), "__call__": None})
    trunk.__call__ = lambda self, images: broken(images)
    with pytest.raises(RuntimeError, match="shapes"):
        hp.patch_features(trunk(), np.zeros((4, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("name", hp.BACKBONES)
def test_folded_batch_norm_changes_nothing_but_the_time(name):
    backbone = hp.BACKBONES[name]
    torch.manual_seed(0)
    network = backbone.build(64).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as if it had been trained
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    stages = backbone.stages(network)
    trunk = hp.Trunk(name, stages, backbone.layers, backbone.mean, backbone.std).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        before = trunk(images)
        hp.fold_batch_norm(trunk)
        after = trunk(images)
    norms = [m for m in trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) <= 1  # the stem's, which is a stage of its own
    for one, two in zip(before, after, strict=True):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-4 * one.abs().max())

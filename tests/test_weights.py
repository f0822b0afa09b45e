"""Weights: files of every kind, and servers that do not answer."""

import hashlib
import io
import os
import pickle
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from samples import features, small_trunk

from anomaly import weights
from anomaly.backbones import AUTO_SECONDS, BACKBONES
from anomaly.errors import InputError
from anomaly.files import ROOT
from anomaly.weights import download_weights

SHARED = Path(os.environ.get("ANOMALY_SHARED", ROOT.parent / "shared"))
REAL = SHARED / "weights" / "resnet18-trunk.pth"


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
    "a whole network": lambda state: BACKBONES["resnet18"].build(64),
    "a list": lambda state: list(state.values()),
    "a tensor": lambda state: torch.zeros(3),
    "a number": lambda state: 3,
    "no weights": lambda state: {},
    "nested": lambda state: {"state_dict": state},
    "numbers for tensors": lambda state: dict.fromkeys(state, 1.0),
    "numbers for names": lambda state: dict(enumerate(state.values())),
    "another network": lambda state: (
        BACKBONES["efficientnet_lite2"].build(64).state_dict()
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
    with pytest.raises(InputError) as caught:
        small_trunk(weights=path)
    message = str(caught.value)
    assert message.startswith(path) and "choose the matching backbone" in message
    assert message.isprintable() and len(message) < 300
    assert not (tmp_path / "attacked").exists()


def test_the_attack_would_work(tmp_path, monkeypatch):
    """Else the test above showed nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Attack()))
    assert (tmp_path / "attacked").exists()


def test_layers_behind_the_cut_may_be_absent(save, state):
    cut = {k: v for k, v in state.items() if not k.startswith(("layer4", "fc"))}
    whole = small_trunk(weights=save(state, "whole.pth"))
    assert torch.equal(features(small_trunk(weights=save(cut))), features(whole))
    with pytest.raises(InputError, match="layer4.*are not in there"):
        small_trunk(weights=save(cut), layers="layer4")


@pytest.mark.skipif(not REAL.exists(), reason="no real weights here")
def test_real_weights():
    trunk = small_trunk(weights=str(REAL))
    x = features(trunk)  # (2, 8, 8, 128 + 256)
    assert x.shape == (2, 8, 8, 384) and x.isfinite().all()
    assert not any(p.requires_grad for p in trunk.parameters())
    assert not trunk.training
    with pytest.raises(InputError, match="not the weights of wide_resnet50_2"):
        small_trunk(name="wide_resnet50_2", weights=str(REAL))


BODY = os.urandom(3 << 18)
NAME = f"net-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"


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
    path = download_weights(url)
    assert path == torch_home / NAME == only_file(torch_home)
    assert path.read_bytes() == BODY
    assert download_weights("http://127.0.0.1:1/" + NAME) == path


def test_cached_file_that_was_cut_short(torch_home, server, capsys):
    torch_home.mkdir(parents=True)
    (torch_home / NAME).write_bytes(BODY[:-1])
    download_weights(server([BODY]))
    assert f"{NAME} is damaged (checksum): removed" in capsys.readouterr().out
    assert only_file(torch_home).read_bytes() == BODY


def test_cached_file_that_was_cut_short_without_a_network(torch_home, capsys):
    torch_home.mkdir(parents=True)
    (torch_home / NAME).write_bytes(BODY[:-1])
    with pytest.raises(OSError, match="refused"):
        download_weights("http://127.0.0.1:1/" + NAME)
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
        download_weights(server(pieces))
    assert not list(torch_home.iterdir())


def test_something_that_is_no_web_server(torch_home):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            client, _ = listener.accept()
            client.sendall(b"\x00\xff hello\r\n\r\n")
            client.close()

        Thread(target=answer, daemon=True).start()
        with pytest.raises(OSError, match=NAME):
            download_weights(f"http://127.0.0.1:{listener.getsockname()[1]}/{NAME}")


def test_silence_is_given_up(torch_home, server, monkeypatch):
    monkeypatch.setattr(weights, "STALL_SECONDS", 0.5)
    for url in (server(None), server([BODY[:1000], 60, BODY[1000:]])):
        start = time.monotonic()
        with pytest.raises(OSError):
            download_weights(url)
        assert time.monotonic() - start < 3


def test_name_look_up_that_hangs(torch_home, monkeypatch):
    monkeypatch.setattr(weights, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: time.sleep(30))
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="not here within"):
        download_weights(f"http://weights.invalid/{NAME}")
    assert time.monotonic() - start < 3
    assert weights.STALL_SECONDS < AUTO_SECONDS <= 10


def test_slow_download_is_awaited_if_asked_for_and_not_by_auto(torch_home, server):
    pieces = [
        x for i in range(0, len(BODY), 1 << 17) for x in (BODY[i:][: 1 << 17], 0.2)
    ]
    with pytest.raises(TimeoutError):
        download_weights(server(pieces), 0.3)
    assert download_weights(server(pieces)).read_bytes() == BODY


def test_torch_home_that_cannot_be_written(tmp_path, monkeypatch, server):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError):
        download_weights(server([BODY]))

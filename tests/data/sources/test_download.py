import hashlib
import http.server
import threading
from functools import partial

import numpy as np
import pytest

from data.errors import InputError
from data.sources import cifar
from data.sources.download import fetch

pytest.importorskip("pooch")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A web server on loopback that serves the folder it returns."""
    folder = tmp_path / "served"
    folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def digest(path):
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_with_the_right_digest_is_kept(server, tmp_path):
    folder, url = server
    (folder / "x.bin").write_bytes(b"content")
    fetch(f"{url}/x.bin", digest(folder / "x.bin"), tmp_path / "new" / "x.bin")
    assert (tmp_path / "new" / "x.bin").read_bytes() == b"content"


def test_a_file_with_another_digest_is_not_kept(server, tmp_path):
    folder, url = server
    (folder / "x.bin").write_bytes(b"content")
    with pytest.raises(InputError, match="not the official one; nothing was kept"):
        fetch(f"{url}/x.bin", "sha256:" + "0" * 64, tmp_path / "new" / "x.bin")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_missing_file_and_a_missing_server_are_told(server, tmp_path):
    _, url = server
    with pytest.raises(InputError, match=r"the download failed \(404"):
        fetch(f"{url}/none", "sha256:0", tmp_path / "x")
    with pytest.raises(InputError, match=r"the download failed \(no connection\)"):
        fetch("http://127.0.0.1:9/none", "sha256:0", tmp_path / "x")


def test_cifar_is_fetched_into_root_once_and_read(
    server, tmp_path, write_cifar, archive, monkeypatch
):
    folder, url = server
    packed = archive(
        write_cifar(tmp_path / "unpacked", "cifar-10-batches-py"), folder / "cifar-10-python.tar.gz"
    )
    monkeypatch.setitem(cifar.SHA256, packed.name, digest(packed).removeprefix("sha256:"))
    root = tmp_path / "datasets"
    source = cifar.Source(
        version="cifar10",
        labels="labels",
        root=str(root),
        download=True,
        mirror=url + "/",
        val_fraction=0.0,
    )
    assert len(source.load(np.random.default_rng(0)).train) == 50
    packed.unlink()  # the second time there is nothing to fetch
    assert len(source.load(np.random.default_rng(0)).train) == 50
    assert [p.name for p in root.iterdir()] == ["cifar-10-python.tar.gz"]

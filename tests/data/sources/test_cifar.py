import gzip
import hashlib
import http.server
import os
import pickle
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from data.errors import InputError
from data.sources.cifar import MAX_MEMBERS, SHA256, Source, fetch

LAYOUTS = {  # folder -> name of the archive, version, kind of labels and what they are
    "cifar-10-batches-py": ("cifar-10-python", "cifar10", "labels"),
    "cifar-10-batches-bin": ("cifar-10-binary", "cifar10", "labels"),
    "cifar-100-python": ("cifar-100-python", "cifar100", "fine_labels"),
    "cifar-100-binary": ("cifar-100-binary", "cifar100", "coarse_labels"),
}
LABELS = {
    "labels": (lambda y: y, "airplane"),
    "fine_labels": (lambda y: y * 7 % 10, "fine0"),
    "coarse_labels": (lambda y: y // 2, "coarse0"),
}


def load(root, version="cifar10", labels="labels", **changes):
    settings = {"download": False, "mirror": "http://127.0.0.1:9", "val_fraction": 0.0} | changes
    source = Source(version=version, labels=labels, root=str(root), **settings)
    return source.load(np.random.default_rng(0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_official_form_is_read(layout, tmp_path, write_cifar, archive, cifar_images):
    folder = write_cifar(tmp_path / "unpacked", layout)
    name, version, kind = LAYOUTS[layout]
    packed = archive(folder, tmp_path / f"{name}.tar.gz")
    (tmp_path / "plain.tar").write_bytes(gzip.decompress(packed.read_bytes()))
    planes, labels = cifar_images
    numbers, first = LABELS[kind]
    for root in (folder, folder.parent, packed, tmp_path, tmp_path / "plain.tar"):
        dataset = load(root, version, kind)
        assert dataset.train.X.shape == (50, 32, 32, 3)
        for split, rows in ((dataset.train, slice(50)), (dataset.test, slice(50, 60))):
            np.testing.assert_array_equal(split.y, numbers(labels)[rows])
            # The file has the red, then the green, then the blue plane of 32 rows.
            expected = planes[rows].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            np.testing.assert_array_equal(split.X, expected)
        assert (dataset.classes[0], dataset.image_shape) == (first, (32, 32, 3))
    assert len(dataset.classes) == (5 if kind == "coarse_labels" else 10)
    assert not (tmp_path / layout).exists()  # an archive is not unpacked


PYTHON, BINARY, BINARY_100 = "cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-binary"
NAMES = ["airplane", "café", "a truck", *"defghij"]
PLANES, Y = np.arange(30_720, dtype=np.uint8).reshape(10, 3072), [*range(10)]


def meta(names):
    return pickle.dumps({"label_names": names}, 2)


def batch(**changes):
    return pickle.dumps({"data": PLANES, "labels": Y} | changes, 2)


WRONG = "^test_batch: 1 labels outside 0 to 9, the first ({}) of image 1$"
SHOWN = [(999, 999), (-1, -1), (10, 10), (2**63, 2**63), (2**200, "int"), (-(2**99999), "int")]
SHOWN += [(0.5, "float"), (True, "bool"), (None, "NoneType"), ([1], "list")]
IMAGES = "^test_batch: its data are not (N, 3072) bytes$"
NO_NAMES, NO_TEXT = "^batches.meta: it has no class names$", "its class names are no text: one is "
DAMAGED = [  # a file of the python version, what it holds instead, and what is said
    ("data_batch_3", None, "data_batch_3 missing; the data are incomplete"),
    ("batches.meta", None, "batches.meta missing"),
    ("test_batch", b"not a batch", "test_batch: not a CIFAR file"),
    ("data_batch_2", bytes(2**26 + 1), "such a file has at most 67108864"),
    *(("batches.meta", meta(names), NO_NAMES) for names in ([], "airplane", {"airplane": 0})),
    *(("batches.meta", meta([*NAMES[:9], name]), NO_TEXT) for name in (9, None, ["j"])),
    ("batches.meta", meta([*NAMES[:9], "a truck"]), "it names 2 classes a truck"),
    *(("test_batch", batch(labels=[0, n, *Y[2:]]), WRONG.format(text)) for n, text in SHOWN),
    ("test_batch", batch(labels=Y[1:]), "^test_batch: 10 images and 9 labels$"),
    ("test_batch", batch(labels={}), "^test_batch: it has no list of labels$"),
    *(("test_batch", batch(data=data), IMAGES) for data in (PLANES[:, 1:], Y, PLANES[0])),
]


@pytest.mark.parametrize(("name", "content", "words"), DAMAGED, ids=map(str, range(len(DAMAGED))))
def test_damaged_files_are_named(name, content, words, tmp_path, write_cifar):
    folder = write_cifar(tmp_path, PYTHON)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    words = words.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises((InputError, FileNotFoundError), match=words):
        load(folder)


def test_records_and_copies_are_looked_at(tmp_path, write_cifar):
    folder = write_cifar(tmp_path, BINARY)
    first, last = folder / "data_batch_1.bin", folder / "data_batch_5.bin"
    content, names = first.read_bytes(), folder / "batches.meta.txt"
    for path, other, words in (
        (last, content, "data_batch_5.bin is a copy of data_batch_1.bin; bring the official"),
        (last, b"\n" + content[1:], r"1 labels outside 0 to 9, the first \(10\) of image 0"),
        (first, content[:-9], "not a whole number of 3073-byte records"),
        (first, b"", "data_batch_1.bin: 0 bytes, not a whole number of 3073-byte records"),
        (names, b"\n", "batches.meta.txt: it has no class names"),
    ):
        before = path.read_bytes()
        path.write_bytes(other)
        with pytest.raises(InputError, match=words):
            load(folder)
        path.write_bytes(before)


@pytest.mark.parametrize("root", ["nowhere", "."])
def test_missing_files_are_told_with_both_ways_to_get_them(root, tmp_path):
    there = "it holds" if root == "." else "there is no such folder, with"
    words = rf"{there} neither {PYTHON} nor cifar-10-python.tar.gz; point data.root at .* "
    with pytest.raises(FileNotFoundError, match=words + "let data.download=true fetch them$"):
        load(tmp_path / root)
    with pytest.raises(InputError, match="labels=labels: cifar100 has fine_labels and coarse_lab"):
        load(tmp_path, "cifar100", "labels")


def members(*names, kind=tarfile.REGTYPE, size=0):
    """Return an archive of empty files, which may say that they are larger or something else."""
    content = b""
    for name in names:
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, size
        content += member.tobuf()
    return gzip.compress(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (members("readme"), "holds no test_batch or test_batch.bin"),
        (members(*["x"] * (MAX_MEMBERS + 1)), "of more than 10000 files"),
        (members("a/test_batch", "b/test_batch"), "'b/test_batch' is there twice"),
        (members("../test_batch"), "a name that leads out of the archive"),
        (members("/test_batch"), "a name that leads out of the archive"),
        (members("a/test_batch", kind=tarfile.SYMTYPE), "is a link or a device, not a file"),
        (members("test_batch", size=2**26 + 1), "such a file has at most 67108864"),
        (members("x", size=2**33), "unpacks to more than 536870912 bytes is not read"),
        (gzip.compress(os.urandom(2000))[:1000], "not a readable .tar.gz archive"),
        (b"not an archive", "not a readable .tar.gz archive"),
    ],
    ids=map(str, range(10)),
)
def test_other_archives_are_named(content, words, tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(content)
    with pytest.raises(InputError, match=words):
        load(tmp_path / "x.tar.gz")


@pytest.mark.parametrize("protocol", range(6))
def test_names_and_labels_may_be_saved_again_by_python_3(protocol, tmp_path, write_cifar):
    folder = write_cifar(tmp_path, PYTHON)
    batch = pickle.loads((folder / "test_batch").read_bytes(), encoding="bytes")
    as_bytes = [name.encode() for name in NAMES]
    mixed = [name if i % 2 else as_bytes[i] for i, name in enumerate(NAMES)]
    for names in (NAMES, tuple(NAMES), as_bytes, tuple(as_bytes), mixed):
        content = pickle.dumps({"label_names": names}, protocol)
        (folder / "batches.meta").write_bytes(content)
        again = {"data": batch[b"data"], "labels": type(names)(batch[b"labels"])}
        (folder / "test_batch").write_bytes(pickle.dumps(again, protocol))
        dataset = load(folder)
        assert dataset.classes.tolist() == NAMES
        assert dataset.test.y.tolist() == batch[b"labels"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", " \n"])
def test_a_name_with_a_blank_is_one_name(end, tmp_path, write_cifar):
    for layout, kind in (
        (BINARY, ("cifar10", "labels")),
        (BINARY_100, ("cifar100", "fine_labels")),
    ):
        folder = write_cifar(tmp_path, layout)
        for path in [*folder.glob("*meta.txt"), *folder.glob("fine*names.txt")]:
            path.write_bytes((end.join(NAMES) + end).encode("utf-8-sig"))
        assert load(folder, *kind).classes.tolist() == NAMES


@pytest.mark.skipif("REAL_CIFAR10" not in os.environ, reason="REAL_CIFAR10 names no folder")
def test_real_images_are_read_as_plain_pickle_reads_them():
    root = Path(os.environ["REAL_CIFAR10"])
    dataset = load(root)
    with (root / "test_batch").open("rb") as file:
        batch = pickle.load(file, encoding="bytes")
    np.testing.assert_array_equal(dataset.test.y, batch[b"labels"])
    planes = batch[b"data"].reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(dataset.test.X.transpose(0, 3, 1, 2), planes)
    assert list(dataset.classes[:3]) == ["airplane", "automobile", "bird"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A web server on loopback that serves the folder it returns."""
    pytest.importorskip("pooch")
    folder = tmp_path / "served"
    folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_kept_where_its_digest_is_right(server, tmp_path):
    (folder, url), there = server, tmp_path / "new" / "x.bin"
    (folder / "x.bin").write_bytes(b"content")
    for address, sha, words in (
        (f"{url}/x.bin", "0" * 64, "not the official one; nothing was kept"),
        (f"{url}/none", "0", r"the download failed \(404"),
        ("http://127.0.0.1:9/none", "0", r"the download failed \(no connection\)"),
        ("file:///etc/hostname", "0", "data.mirror must begin with https:// or http://"),
    ):
        with pytest.raises(InputError, match=words):
            fetch(address, f"sha256:{sha}", there)
        assert not there.exists()
    fetch(f"{url}/x.bin", f"sha256:{digest(folder / 'x.bin')}", there)
    assert there.read_bytes() == b"content"


def test_cifar_is_fetched_into_root_once_and_read(
    server, tmp_path, write_cifar, archive, monkeypatch
):
    (folder, url), root = server, tmp_path / "datasets"
    packed = archive(write_cifar(tmp_path / "unpacked", PYTHON), folder / "cifar-10-python.tar.gz")
    monkeypatch.setitem(SHA256, "cifar10", digest(packed))
    assert len(load(root, download=True, mirror=url + "/").train) == 50
    packed.unlink()  # the second time there is nothing to fetch
    assert len(load(root, download=True, mirror=url + "/").train) == 50
    assert [p.name for p in root.iterdir()] == ["cifar-10-python.tar.gz"]

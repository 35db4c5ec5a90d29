import gzip
import hashlib
import http.server
import os
import pickle
import re
import tarfile
import threading
from functools import partial

import numpy as np
import pytest

from data.errors import InputError
from data.sources import cifar
from data.sources.cifar import MAX_MEMBERS, SHA256, Source

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


PYTHON, BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"
NAMES = ["airplane", "café", "a truck", *"defghij"]
PLANES, Y = np.arange(30_720, dtype=np.uint8).reshape(10, 3072), [*range(10)]


def meta(names):
    return pickle.dumps({"label_names": names}, 2)


def batch(**changes):
    return pickle.dumps({"data": PLANES, "labels": Y} | changes, 2)


META, TEST, FIRST = "batches.meta", "test_batch", "data_batch_1.bin"
NO_NAMES, NOT_WHOLE = (
    "batches.meta: it has no names of classes",
    f"{FIRST}: not a whole file of CIFAR",
)
NO_LABEL = "the label of image 1 is none of 0 to 9"
PARTS = "test_batch: not a whole file of CIFAR (labels and data (N, 3072) of as many images are"
WRONG = [999, -1, 10, 2**63, 2**200, -(2**99999), 0.5, True, None, [1]]  # labels
NO_LISTS = [
    [],
    "airplane",
    {"airplane": 0},
    *([*NAMES[:9], n] for n in (9, None, ["j"], "a truck")),
]
DAMAGED = [  # files, what they hold instead, and what is said
    ("data_batch_3", None, "data_batch_3 missing; the data are incomplete"),
    (META, None, "batches.meta missing"),
    (TEST, b"not a batch", "test_batch: not a CIFAR file"),
    ("data_batch_2", bytes(2**17), "131072 bytes; such a file has at most 131071"),
    *((META, meta(names), NO_NAMES) for names in NO_LISTS),
    *((TEST, batch(labels=[0, n, *Y[2:]]), NO_LABEL) for n in WRONG),
    *((TEST, batch(labels=labels), PARTS) for labels in (Y[1:], {}, 3)),
    *((TEST, batch(data=data), PARTS) for data in (PLANES[:, 1:], PLANES[0], PLANES[:0])),
    *((FIRST, bytes(n), NOT_WHOLE) for n in (0, 3072, 6000)),
    (FIRST, bytes(3073) + b"\n" + bytes(3072), NO_LABEL),
    (f"{FIRST} test_batch.bin", bytes(3073), "test_batch.bin is a copy of data_batch_1.bin"),
    ("batches.meta.txt", b"\n", "batches.meta.txt: it has no names of classes"),
]


def test_damaged_files_are_named(tmp_path, write_cifar, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_BYTES", 2**17 - 1)
    folders = {layout: write_cifar(tmp_path, layout) for layout in (PYTHON, BINARY)}
    for names, content, words in DAMAGED:
        folder = folders[BINARY if names.endswith((".bin", ".txt")) else PYTHON]
        before = {folder / name: (folder / name).read_bytes() for name in names.split()}
        for path in before:
            path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(words)):
            load(folder)
        for path, whole in before.items():
            path.write_bytes(whole)


def test_missing_files_are_told_with_both_ways_to_get_them(tmp_path):
    for root, there in (("nowhere", "there is no such folder, with"), (".", "it holds")):
        words = rf"{there} neither {PYTHON} nor cifar-10-python.tar.gz; point data.root at .* "
        with pytest.raises(FileNotFoundError, match=words + "let data.download=true fetch them$"):
            load(tmp_path / root)
    with pytest.raises(InputError, match="labels=labels: cifar100 has fine_labels and coarse_lab"):
        load(tmp_path, "cifar100", "labels")


def members(n=1, name="x", size=0):
    """Return an archive of so many empty files, which may say that they are larger."""
    member = tarfile.TarInfo(name)
    member.size = size
    return gzip.compress(n * member.tobuf())


ARCHIVES = [  # those that someone would harm with are in test_bad_input.py
    (members(), "test_batch missing; the data are"),
    (members(MAX_MEMBERS + 1), "of more than 10000 files"),
    (members(name="test_batch", size=2**28 + 1), "such a file has at most 268435456"),
    (members(size=2**33), "such a file has at most 268435456"),
    (gzip.compress(os.urandom(2000))[:1000], "not a readable .tar.gz archive"),
    (b"not an archive", "not a readable .tar.gz archive"),
]


def test_other_archives_are_named(tmp_path):
    for content, words in ARCHIVES:
        (tmp_path / "x.tar.gz").write_bytes(content)
        with pytest.raises(InputError, match=words):
            load(tmp_path / "x.tar.gz")


def test_names_and_labels_may_be_saved_again_by_python_3(tmp_path, write_cifar):
    folder = write_cifar(tmp_path, PYTHON)
    mixed = [name if i % 2 else name.encode() for i, name in enumerate(NAMES)]
    for protocol, names in ((0, NAMES), (2, tuple(NAMES)), (5, mixed)):
        content = pickle.dumps({"label_names": names}, protocol)
        (folder / "batches.meta").write_bytes(content)
        again = {"data": PLANES, "labels": type(names)(Y)}
        (folder / "test_batch").write_bytes(pickle.dumps(again, protocol))
        dataset = load(folder)
        assert (dataset.classes.tolist(), dataset.test.y.tolist()) == (NAMES, Y)


@pytest.mark.parametrize("layout", [BINARY, "cifar-100-binary"])
def test_a_name_with_a_blank_is_one_name(layout, tmp_path, write_cifar):
    folder = write_cifar(tmp_path, layout)
    kind = ("cifar10", "labels") if layout == BINARY else ("cifar100", "fine_labels")
    for end in ("\n", "\r\n", "\n\n", " \n"):
        for path in folder.glob("*.txt"):
            path.write_bytes((end.join(NAMES) + end).encode("utf-8-sig"))
        assert load(folder, *kind).classes.tolist() == NAMES


def test_cifar_is_fetched_into_root_once_where_its_digest_is_right(
    tmp_path, write_cifar, archive, monkeypatch
):
    pytest.importorskip("pooch")
    root = tmp_path / "datasets"
    packed = archive(
        write_cifar(tmp_path / "unpacked", PYTHON), tmp_path / "cifar-10-python.tar.gz"
    )
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for mirror, words in (
            (url, r"nothing was kept \(SHA256 hash .* does not match"),
            (url + "/none", r"the download failed, and nothing was kept \(404"),
            (
                "http://127.0.0.1:9",
                r"the download failed, and nothing was kept \(HTTPConnectionPool",
            ),
            (f"file://{tmp_path}", "data.mirror must begin with https:// or http://"),
        ):
            with pytest.raises(InputError, match=words):
                load(root, download=True, mirror=mirror)
            assert not [*root.glob("*")]
        digest = hashlib.sha256(packed.read_bytes()).hexdigest()
        monkeypatch.setitem(SHA256, "cifar10", digest)
        for _ in range(2):  # the second time there is nothing to fetch
            assert len(load(root, download=True, mirror=url + "/").train) == 50
            packed.unlink(missing_ok=True)
        server.shutdown()
    assert [p.name for p in root.iterdir()] == ["cifar-10-python.tar.gz"]

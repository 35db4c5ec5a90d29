import gzip
import hashlib
import http.server
import os
import pickle
import struct
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from data.errors import InputError
from data.sources.cifar import MAX_BYTES, MAX_MEMBERS, SHA256, Source, fetch
from data.sources.restricted_pickle import read_pickle

LAYOUTS = {
    "cifar-10-batches-py": ("cifar10", "labels"),
    "cifar-10-batches-bin": ("cifar10", "labels"),
    "cifar-100-python": ("cifar100", "fine_labels"),
    "cifar-100-binary": ("cifar100", "coarse_labels"),
}


def load(root, version="cifar10", labels="labels", **changes):
    settings = {"download": False, "mirror": "http://127.0.0.1:9", "val_fraction": 0.0} | changes
    source = Source(version=version, labels=labels, root=str(root), **settings)
    return source.load(np.random.default_rng(0))


def expected_labels(labels, kind):
    return {"labels": labels, "fine_labels": labels * 7 % 10, "coarse_labels": labels // 2}[kind]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", ["folder", "parent", "archive", "parent of archive"])
def test_every_official_form_is_read(layout, place, tmp_path, write_cifar, archive, cifar_images):
    folder = write_cifar(tmp_path / "unpacked", layout)
    names = {"cifar-10-batches-py": "cifar-10-python", "cifar-10-batches-bin": "cifar-10-binary"}
    packed = archive(folder, tmp_path / f"{names.get(layout, layout)}.tar.gz")
    root = {"folder": folder, "parent": folder.parent, "archive": packed}.get(place, tmp_path)
    version, kind = LAYOUTS[layout]
    dataset = load(root, version, kind)
    planes, labels = cifar_images
    y = expected_labels(labels, kind)
    assert dataset.train.X.shape == (50, 32, 32, 3)
    assert dataset.train.X.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train.y, y[:50])
    np.testing.assert_array_equal(dataset.test.y, y[50:])
    # The file has the red, then the green, then the blue plane of 32 rows.
    for channel in range(3):
        plane = planes[50:, 1024 * channel : 1024 * (channel + 1)].reshape(-1, 32, 32)
        np.testing.assert_array_equal(dataset.test.X[..., channel], plane)
    first = {"labels": "airplane", "fine_labels": "fine0", "coarse_labels": "coarse0"}[kind]
    assert dataset.classes[0] == first
    assert dataset.image_shape == (32, 32, 3)
    assert not (tmp_path / layout).exists()  # an archive is not unpacked


def test_coarse_and_fine_labels_are_the_users_choice(tmp_path, write_cifar):
    root = write_cifar(tmp_path, "cifar-100-python")
    assert len(load(root, "cifar100", "fine_labels").classes) == 10
    assert len(load(root, "cifar100", "coarse_labels").classes) == 5


@pytest.mark.parametrize("root", ["nowhere", "."])
def test_missing_files_are_told_with_both_ways_to_get_them(root, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load(tmp_path / root)
    message = str(caught.value)
    assert "neither cifar-10-batches-py nor cifar-10-python.tar.gz" in message
    assert "data.root" in message
    assert "data.download=true" in message
    assert "\n" not in message


def _without(folder, name):
    (folder / name).unlink()


def _cut(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1000])


def _text(folder, name):
    (folder / name).write_text("not a batch", encoding="utf-8")


def _label_ten(folder, name):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[0] = 10
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("layout", "damage", "name", "words"),
    [
        ("cifar-10-batches-py", _without, "data_batch_3", "data_batch_3 missing"),
        ("cifar-10-batches-py", _without, "batches.meta", "batches.meta missing"),
        ("cifar-10-batches-py", _cut, "data_batch_2", "data_batch_2: not a CIFAR file"),
        ("cifar-10-batches-py", _text, "test_batch", "test_batch: not a CIFAR file"),
        ("cifar-10-batches-bin", _cut, "data_batch_1.bin", "not a whole number of 3073-byte"),
        ("cifar-10-batches-bin", _label_ten, "data_batch_5.bin", "1 labels outside 0 to 9"),
    ],
)
def test_damaged_files_are_named(layout, damage, name, words, tmp_path, write_cifar):
    folder = write_cifar(tmp_path, layout)
    damage(folder, name)
    with pytest.raises((InputError, FileNotFoundError), match=words):
        load(folder)


def test_a_file_that_declares_too_much_is_not_read(tmp_path, write_cifar, monkeypatch):
    folder = write_cifar(tmp_path, "cifar-10-batches-py")
    monkeypatch.setitem(MAX_BYTES, "cifar10", 1000)
    with pytest.raises(InputError, match="such a file has at most 1000"):
        load(folder)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(4, 6), (40, 3072)])  # the latter stays where it stands
def test_arrays_of_all_protocols_are_read_as_pickle_reads_them(protocol, order, shape):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    array = np.asarray(values, order=order)
    content = pickle.dumps({"data": array, "labels": [1, 2]}, protocol)
    read = read_pickle(content, "batch")
    np.testing.assert_array_equal(read[b"data"], array)
    assert read[b"labels"] == [1, 2]


@pytest.mark.parametrize(
    "content",
    [[1, 2], {"data": np.arange(3.0)}, {"data": np.array([object()])}, {1.5: 2}],
    ids=["a list", "floats", "objects", "a number as key"],
)
def test_other_pickles_are_refused(content):
    with pytest.raises(InputError, match="batch: not a CIFAR file"):
        read_pickle(pickle.dumps(content, 2), "batch")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            gzip.compress(tarfile.TarInfo("readme").tobuf()),
            "holds no test_batch or",
        ),
        (
            gzip.compress(tarfile.TarInfo("x").tobuf() * (MAX_MEMBERS + 1)),
            "of more than 10000",
        ),
        (gzip.compress(os.urandom(2000))[:1000], "not a readable .tar.gz archive"),
        (b"not an archive", "not a readable .tar.gz archive"),
    ],
    ids=["without the files", "of very many files", "cut", "text"],
)
def test_other_archives_are_named(content, words, tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.tar\.gz: .*{words}"):
        load(tmp_path / "x.tar.gz")


def test_a_batch_that_python_2_wrote_is_read_as_plain_pickle_reads_it():
    values = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)

    def text(some):
        length = b"U%c" % len(some) if len(some) < 256 else b"T" + struct.pack("<I", len(some))
        return length + some

    kind = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    kind += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    array += b"\x87R(K\x01K\x02M\x00\x0c\x86" + kind + b"\x89" + text(values.tobytes()) + b"tb"
    names = b"](" + text(b"one.png") + text(b"two.png") + b"e"
    pairs = {b"labels": b"](K\x03K\x07e", b"data": array, b"filenames": names}
    content = b"".join(text(key) + value for key, value in pairs.items())
    content = b"\x80\x02}(" + content + b"u."
    expected = pickle.loads(content, encoding="bytes")
    batch = read_pickle(content, "batch")
    assert batch[b"labels"] == expected[b"labels"] == [3, 7]
    np.testing.assert_array_equal(batch[b"data"], expected[b"data"])
    np.testing.assert_array_equal(batch[b"data"], values)


NAMES = ["airplane", "café", "a truck", *"defghij"]


def with_names(folder, names, protocol):
    path = folder / ("meta" if "100" in folder.name else "batches.meta")
    keys = ["fine_label_names", "coarse_label_names"] if "100" in folder.name else ["label_names"]
    path.write_bytes(pickle.dumps(dict.fromkeys(keys, names), protocol))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("layout", ["cifar-10-batches-py", "cifar-100-python"])
@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        tuple(NAMES),
        [name.encode() for name in NAMES],
        tuple(name.encode() for name in NAMES),
        [name.encode() if i % 2 else name for i, name in enumerate(NAMES)],
    ],
    ids=["str", "a tuple of str", "bytes", "a tuple of bytes", "mixed"],
)
def test_names_may_be_saved_again_by_python_3(names, layout, protocol, tmp_path, write_cifar):
    folder = write_cifar(tmp_path, layout)
    with_names(folder, names, protocol)
    assert load(folder, *LAYOUTS[layout]).classes.tolist() == NAMES


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "it has no class names"),
        ("airplane", "it has no class names"),
        ({"airplane": 0}, "it has no class names"),
        ([*NAMES[:9], 9], "its class names are no text: one is of type int"),
        ([*NAMES[:9], None], "its class names are no text: one is of type NoneType"),
        ([*NAMES[:9], ["j"]], "its class names are no text: one is of type list"),
        ([*NAMES[:9], "a truck"], "it names 2 classes a truck"),
    ],
)
def test_what_is_no_list_of_names_is_refused(names, words, tmp_path, write_cifar):
    folder = write_cifar(tmp_path, "cifar-10-batches-py")
    with_names(folder, names, 2)
    with pytest.raises(InputError, match=f"^batches.meta: {words}$"):
        load(folder)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", " \n"])
@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        ("cifar-10-batches-bin", ("cifar10", "labels")),
        ("cifar-100-binary", ("cifar100", "fine_labels")),
    ],
)
def test_a_name_with_a_blank_is_one_name(layout, kind, end, tmp_path, write_cifar):
    folder = write_cifar(tmp_path, layout)
    for path in [*folder.glob("*meta.txt"), *folder.glob("*names.txt")]:
        path.write_bytes((end.join(NAMES) + end).encode("utf-8-sig"))
    assert load(folder, *kind).classes.tolist() == NAMES


def with_labels(folder, change, protocol=2):
    """Change the labels of the test batch; return what they were."""
    batch = pickle.loads((folder / "test_batch").read_bytes(), encoding="bytes")
    batch = {key.decode(): value for key, value in batch.items()}
    content = pickle.dumps(batch | {"labels": change(batch["labels"])}, protocol)
    (folder / "test_batch").write_bytes(content)
    return batch["labels"]


@pytest.mark.parametrize("protocol", range(6))
def test_labels_may_be_a_tuple(protocol, tmp_path, write_cifar):
    folder = write_cifar(tmp_path, "cifar-10-batches-py")
    labels = with_labels(folder, tuple, protocol)
    assert load(folder).test.y.tolist() == labels


MANY = "a number of many digits"


@pytest.mark.parametrize(
    ("label", "words"),
    [
        *((n, rf"1 labels outside 0 to 9, the first \({n}\) of") for n in (999, -1, 10, 2**63)),
        (2**200, rf"1 labels outside 0 to 9, the first \({MANY}\) of"),
        pytest.param(-(2**99999), rf"1 labels outside 0 to 9, the first \({MANY}\) of", id="long"),
        (0.5, r"1 labels are no whole numbers, the first \(float\) of"),
        (True, r"1 labels are no whole numbers, the first \(bool\) of"),
        ([1], r"1 labels are no whole numbers, the first \(list\) of"),
        (None, r"1 labels are no whole numbers, the first \(NoneType\) of"),
    ],
)
def test_labels_of_no_class_are_told(label, words, tmp_path, write_cifar):
    folder = write_cifar(tmp_path, "cifar-10-batches-py")
    with_labels(folder, lambda labels: [*labels[:1], label, *labels[2:]])
    with pytest.raises(InputError, match=f"test_batch: {words} image 1$"):
        load(folder)


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
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def digest(path):
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_kept_where_its_digest_is_right(server, tmp_path):
    folder, url = server
    (folder / "x.bin").write_bytes(b"content")
    with pytest.raises(InputError, match="not the official one; nothing was kept"):
        fetch(f"{url}/x.bin", "sha256:" + "0" * 64, tmp_path / "new" / "x.bin")
    assert list((tmp_path / "new").iterdir()) == []
    fetch(f"{url}/x.bin", digest(folder / "x.bin"), tmp_path / "new" / "x.bin")
    assert (tmp_path / "new" / "x.bin").read_bytes() == b"content"


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
    monkeypatch.setitem(SHA256, packed.name, digest(packed).removeprefix("sha256:"))
    root = tmp_path / "datasets"
    assert len(load(root, download=True, mirror=url + "/").train) == 50
    packed.unlink()  # the second time there is nothing to fetch
    assert len(load(root, download=True, mirror=url + "/").train) == 50
    assert [p.name for p in root.iterdir()] == ["cifar-10-python.tar.gz"]

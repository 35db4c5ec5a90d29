"""What cannot be used: a row each, with the line it gives, through the programs and from Python."""

import gzip
import io
import os
import re
import shutil
import tarfile
import warnings
import zipfile

import numpy as np
import pytest

from classifier.model import LinearModel
from classifier.runs.config import PredictConfig
from classifier.runs.prediction import predict
from classifier.runs.run import run
from data.errors import InputError
from data.preprocessing import AffineMap
from data.sources.cifar import Source as Cifar
from data.sources.files import Source as Arrays

X, Y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
GIB = 2**30


def spoilt(value, *places):
    bad = X.copy()
    for place in places:
        bad[place] = value
    return bad


def save(path, changes):
    arrays = {name: a for name, a in ({"X": X, "y": Y} | changes).items() if a is not None}
    np.savez(path, **arrays)


# Of what `data/sources` refuses: what predict.py reads too, and the line about it.
ARRAYS = {
    "nan": ({"X": spoilt(np.nan, (7, 2), (9, 1))}, r"example 7 holds nan: .* \(at \[7, 2\]"),
    "lengths": ({"y": Y[:50]}, "X holds 60 examples and y 50 labels"),
    "dates": ({"X": X.astype("datetime64[s]")}, "X is datetime64"),
    "objects": ({"y": Y.astype(object)}, "y holds Python objects; save text as y.astype"),
    "pickled": ({"X": np.array([{}, []], dtype=object)}, "X holds Python objects"),
}
ARCHIVES = {  # what stands in an .npz file, by name
    "huge": (["X.npy", "y.npy"], r"a damaged .npz file \(X says 7199999999928 bytes and has 0"),
    "lines": (["two\nlines.npy"], "(X is int64 of shape|nothing in it has a name of the label)"),
    "twice": (["y.npy"] * 2, r"a damaged .npz file \(it holds y twice"),
}


def write_bad_files(folder):
    """Write files of those names; return the lines."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 9), }"
    header = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    y = io.BytesIO()
    np.lib.format.write_array(y, Y)
    for name, (changes, _) in ARRAYS.items():
        save(folder / f"{name}.npz", changes)
    for name, (members, _) in ARCHIVES.items():
        with zipfile.ZipFile(folder / f"{name}.npz", "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that is there twice
            for part in members:
                archive.writestr(part, header if part == "X.npy" else y.getvalue())
    (folder / "folder.npz").mkdir()
    others = {
        "none": "no such file",
        "folder": "no pictures .* in the folder or in its sub-folders",
    }
    return {name: words for name, (_, words) in (ARRAYS | ARCHIVES).items()} | others


def test_what_cannot_be_used_is_refused_by_a_training_and_a_prediction(tmp_path):
    model = tmp_path / "model.npz"
    W, features = np.eye(4, 3, dtype=np.float32), AffineMap(np.zeros(4), np.ones(4))
    LinearModel(W, np.zeros(3, np.float32), np.arange(3), features, None, {}).save(model)
    for name, words in write_bad_files(tmp_path).items():
        path = tmp_path / f"{name}.npz"
        told = pytest.raises((ValueError, FileNotFoundError), match=f"{path.name}: {words}")
        source = Arrays(train=str(path), val=None, test=None, val_fraction=0.1, test_fraction=0.2)
        with told:
            source.load(np.random.default_rng(0))
        with told:
            predict(PredictConfig(str(model), str(path), str(tmp_path / "p.csv"), "o", 1))
    assert not [*tmp_path.glob("p.csv"), *tmp_path.glob(".*.part")]


@pytest.fixture
def powerless(make_fork_server, repository, tmp_path):
    """Run a program there as a user with no right to what is closed, be it root."""
    root = os.geteuid() == 0
    if root and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if root else []
    said = tmp_path / "said"
    said.mkdir()
    server = make_fork_server({**os.environ, "PYTHONPATH": str(repository)}, before=without)

    def run(*arguments):
        program = server.start(arguments, tmp_path, said)
        program.poll(block=True)
        return program

    yield run
    server.close()


@pytest.mark.slow
def test_places_without_permission(powerless, tmp_path):
    save(tmp_path / "x.npz", {})
    (tmp_path / "closed").mkdir()
    save(tmp_path / "closed/x.npz", {})
    (tmp_path / "closed/run").mkdir()
    (tmp_path / "closed").chmod(0)
    (tmp_path / "readonly").mkdir(mode=0o555)
    train, predict, report = ["train.py"], ["predict.py"], ["-m", "classifier.report"]
    for program, arguments, words in (
        (train, ["data=files", "data.train=closed/x.npz"], "closed/x.npz: Permission denied"),
        (train, ["resume=closed/run"], "closed/run.*: Permission denied"),
        (train, ["resume=latest", "outputs=closed"], "closed/latest.txt: Permission denied"),
        (predict, ["run=closed/run", "input=x.npz"], "closed/run: Permission denied"),
        (report, ["closed/run"], "closed/run: Permission denied"),
        (train, ["hydra.run.dir=readonly/run"], "readonly/run: Permission denied"),
        (train, ["outputs=x.npz"], "x.npz/runs/.*: Not a directory"),
    ):
        done = powerless(*program, *arguments)
        assert re.search(words, done.refusal)
    (tmp_path / "closed").chmod(0o755)


def add(tar, name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


PART = "cifar-10-batches-bin/test_batch.bin"
IMAGE, LINK = {"content": b"x" * 3073}, {"linkname": "data_batch_1.bin"}
OTHER = "test_batch.bin' is no file, leads out of the archive, or is there twice"
HOSTILE = {  # what an archive holds that no one should read, and the line about it
    "leads out": ([("../../test_batch.bin", IMAGE)], OTHER),
    "absolute": ([("/etc/test_batch.bin", IMAGE)], OTHER),
    "symlink": ([(PART, LINK | {"type": tarfile.SYMTYPE})], OTHER),
    "hard link": ([(PART, LINK | {"type": tarfile.LNKTYPE})], OTHER),
    "twice": ([(PART, IMAGE), ("again/test_batch.bin", IMAGE)], OTHER),
    "declared bomb": ([], "readme: 8589934592 bytes; such a file has at most 268435456"),
    "long name bomb": ([], "unpacks to more than 536870912 bytes is not read"),
}


def hostile(kind, path):
    with tarfile.open(path, "w:gz") as tar:
        for name, fields in HOSTILE[kind][0]:
            add(tar, name, **fields)
    if "bomb" in kind:
        header = tarfile.TarInfo("readme" if kind == "declared bomb" else "././@LongLink")
        header.size = 2**33
        header.type = tarfile.REGTYPE if kind == "declared bomb" else tarfile.GNUTYPE_LONGNAME
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            for _ in range(600):
                file.write(bytes(2**20))


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives(kind, command, tmp_path):
    words = HOSTILE[kind][1]
    hostile(kind, tmp_path / "cifar.tar.gz")
    if "bomb" in kind:
        done = command("train.py", "data=cifar10", "data.root=cifar.tar.gz")
        assert words in done.refusal
        assert (done.computed < 5, done.memory < GIB) == (True, True)
    else:
        settings = {"labels": "labels", "download": False, "mirror": "none", "val_fraction": 0.1}
        source = Cifar(version="cifar10", root=str(tmp_path / "cifar.tar.gz"), **settings)
        with pytest.raises(ValueError, match=words):
            source.load(None)
    assert not list(tmp_path.rglob("test_batch*"))


ODD = {
    "features of 1e30": ({"X": 1e30 * X}, ""),
    "a constant feature": ({"X": spoilt(5.0, (slice(None), 1))}, ""),
    "constant features": ({"X": np.ones((60, 4))}, "every feature is constant"),
    "sequences of embeddings": ({"X": X.repeat(6, 1).reshape(60, 6, 4)}, r"24 features \(6 x 4\)"),
    **{  # which is named so that it is seen
        f"one example of class {shown}": ({"y": np.array([name, *["a", "b"] * 29, "a"])}, shown)
        for name, shown in (
            ("", "class '' first"),
            ("z ", "'z ' first"),
            ("z z", "class z z first"),
        )
    },
}


@pytest.mark.parametrize("row", ODD)
def test_what_is_odd_but_can_be_used(row, job_of, tmp_path, caplog):
    changes, words = ODD[row]
    save(tmp_path / "x.npz", changes)
    run([job_of(tmp_path / "r", "data=files", f"data.train={tmp_path}/x.npz", "epochs=9")])
    assert re.search(words, caplog.text)


@pytest.mark.slow
def test_ten_thousand_classes(command, tmp_path):
    y = np.arange(12_000) % 10_000
    np.savez(tmp_path / "x.npz", X=np.random.default_rng(0).normal(size=(12_000, 3)), y=y)
    arguments = ["data=files", "data.train=x.npz", "epochs=1", "batch_size=1000"]
    done = command("train.py", *arguments, "report.plots=false")
    assert done.returncode == 0, done.stderr
    assert done.memory < GIB // 2  # the scores of all examples of training are 320 MiB


@pytest.mark.parametrize("size", [1e6, 1e-6, 1e-50])
def test_features_that_one_step_cannot_suit_are_told(size, job_of, tmp_path, caplog):
    save(tmp_path / "x.npz", {"X": size * X})
    given = ["data=files", f"data.train={tmp_path}/x.npz", "epochs=9"]
    job = job_of(tmp_path / "r", *given, "preprocessing=none")
    if size == 1e-50:
        words = "that float32 rounds to zero after preprocessing; use preprocessing=standardize"
        with pytest.raises(InputError, match=words):
            run([job])
        run([job_of(tmp_path / "s", *given)])
    else:
        run([job])
        assert f"the prepared features are of size {2.6 * size:.0e}"[:40] in caplog.text
        assert "use preprocessing=standardize" in caplog.text

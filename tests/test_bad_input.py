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

from classifier.model import FORMAT, LinearModel
from classifier.runs.config import PredictConfig
from classifier.runs.prediction import predict
from data.files.arrays import write_sealed
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


# Of what `data/sources` refuses: what predict.py reads too, and the line about it.
ARRAYS = {
    "NaN": ({"X": spoilt(np.nan, (7, 2), (9, 1))}, r"example 7 holds nan: .* \(at \[7, 2\]"),
    "infinity": ({"X": spoilt(-np.inf, (3, 0))}, r"example 3 holds -inf: .* \(at \[3, 0\]"),
    "unequal lengths": ({"y": Y[:50]}, "X holds 60 examples and y 50 labels"),
    "NaN label": ({"y": np.where(Y, Y, np.nan)}, r"y\[0\]=nan: labels must be whole"),
    "dates in X": ({"X": X.astype("datetime64[s]")}, "X is datetime64"),
    "object labels": ({"y": Y.astype(object)}, "y holds Python objects; save text as y.astype"),
    "no X": (
        {"X": None},
        r"nothing in it has a name of the features .*; it holds y: give data.features=",
    ),
    "two labels each": ({"y": np.c_[Y, Y]}, r"y is int64 of shape \(60, 2\)"),
}


def save(path, changes):
    arrays = {name: a for name, a in ({"X": X, "y": Y} | changes).items() if a is not None}
    np.savez(path, **arrays)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.npz"
    features = AffineMap(np.zeros(4), np.ones(4))
    weights = np.eye(4, 3, dtype=np.float32)
    LinearModel(weights, np.zeros(3, np.float32), np.arange(3), features, None, {}).save(path)
    return path


def check_refused(path, words, model_file):
    """Check that a training and a prediction refuse a file, and write nothing."""
    source = Arrays(train=str(path), val=None, test=None, val_fraction=0.1, test_fraction=0.2)
    places = {"input": str(path), "output": str(path.with_name("p.csv")), "outputs": "o"}
    config = PredictConfig(run=str(model_file), top_k=1, **places)
    for read in (lambda: source.load(np.random.default_rng(0)), lambda: predict(config)):
        with pytest.raises((ValueError, FileNotFoundError), match=f"{path.name}: {words}"):
            read()
    assert not path.with_name("p.csv").exists()
    assert not list(path.parent.glob(".*.part"))


@pytest.mark.parametrize("row", ARRAYS)
def test_arrays(row, tmp_path, model_file):
    changes, words = ARRAYS[row]
    save(tmp_path / "bad.npz", changes)
    check_refused(tmp_path / "bad.npz", words, model_file)


def not_npz(folder):
    save(folder / "whole.npz", {})
    (folder / "cut.npz").write_bytes((folder / "whole.npz").read_bytes()[:700])
    (folder / "empty.npz").write_bytes(b"")
    np.savez(folder / "pickled.npz", X=np.array([{}, []], dtype=object), y=Y)
    (folder / "folder.npz").mkdir()
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 9), }"
    header = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    y = io.BytesIO()
    np.lib.format.write_array(y, Y)
    members = {"huge": ["X.npy", "y.npy"], "lines": ["two\nlines.npy"], "twice": ["y.npy"] * 2}
    for name, parts in members.items():
        with zipfile.ZipFile(folder / f"{name}.npz", "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that is there twice
            for part in parts:
                archive.writestr(part, header if part == "X.npy" else y.getvalue())


FILES = {
    "cut.npz": "an .npz file cut short",
    "empty.npz": "not an .npz file; numpy.savez",
    "pickled.npz": "X holds Python objects",
    "folder.npz": "no pictures .* in the folder or in its sub-folders",
    "none.npz": "no such file",
    "huge.npz": r"a damaged .npz file \(X says 7199999999928 bytes and has 0",
    "lines.npz": "(X is int64 of shape|nothing in it has a name of the label)",
    "twice.npz": r"a damaged .npz file \(it holds y twice",
}


def test_files_that_are_no_arrays(tmp_path, model_file):
    not_npz(tmp_path)
    for name, words in FILES.items():
        check_refused(tmp_path / name, words, model_file)


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
        (train, ["data=cifar10", "data.root=closed/run"], "closed/run: Permission denied"),
        (train, ["resume=closed/run"], "closed/run.*: Permission denied"),
        (train, ["resume=latest", "outputs=closed"], "closed/latest.txt: Permission denied"),
        (predict, ["run=closed/run", "input=x.npz"], "closed/run: Permission denied"),
        (predict, ["input=x.npz", "outputs=closed"], "closed/latest.txt: Permission denied"),
        (report, ["closed/run"], "closed/run: Permission denied"),
        (train, ["hydra.run.dir=readonly/run"], "readonly/run: Permission denied"),
        (train, ["outputs=readonly"], "readonly/runs: Permission denied"),
        (train, ["outputs=x.npz"], "x.npz/runs/.*: Not a directory"),
        (train, ["hydra.run.dir=x.npz"], "x.npz: File exists"),
    ):
        done = powerless(*program, *arguments)
        assert done.returncode == 1
        assert re.search(words, done.stderr), done.stderr
        assert done.stderr.count("\n") == 1
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
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert words in done.stderr
        assert (done.computed < 5, done.memory < GIB) == (True, True)
    else:
        settings = {"labels": "labels", "download": False, "mirror": "none", "val_fraction": 0.1}
        source = Cifar(version="cifar10", root=str(tmp_path / "cifar.tar.gz"), **settings)
        with pytest.raises(ValueError, match=words):
            source.load(None)
    assert not list(tmp_path.rglob("test_batch*"))


def test_a_model_of_another_format_is_told_by_name(tmp_path, model_file):
    with np.load(model_file) as file:
        arrays = {name: array for name, array in file.items() if name != "format"}
    no_text = np.array([0x7FFFFFFF], dtype="<u4").view("<U1").reshape(())
    for changes, version, words in (
        ({}, 1, f"m.npz: model format 1, this program reads {FORMAT}; train it anew"),
        ({}, 99, f"m.npz: model format 99, this program reads {FORMAT}"),
        ({"format": no_text}, FORMAT, "m.npz: not a model file; it holds "),
    ):
        write_sealed(tmp_path / "m.npz", version, arrays | changes)
        with pytest.raises(ValueError, match=words):
            LinearModel.load(tmp_path / "m.npz")


ODD = {
    "features of 1e30": ({"X": 1e30 * X}, ""),
    "features of 1e-30": ({"X": 1e-30 * X}, ""),
    "a constant feature": ({"X": spoilt(5.0, (slice(None), 1))}, ""),
    "constant features": ({"X": np.ones((60, 4))}, "every feature is constant"),
    "sequences of embeddings": ({"X": X.repeat(6, 1).reshape(60, 6, 4)}, r"24 features \(6 x 4\)"),
    "a class with one example": ({"y": np.where(np.arange(60), Y, 9)}, "class 9 first"),
    "negative labels": ({"y": Y - 7}, ""),
    "text labels": ({"y": np.array(["a", "b", "c"])[Y]}, ""),
}


@pytest.mark.parametrize("row", ODD)
def test_what_is_odd_but_can_be_used(row, command, tmp_path):
    changes, words = ODD[row]
    save(tmp_path / "x.npz", changes)
    arguments = ["data=files", "data.train=x.npz", "report.plots=false", "epochs=9"]
    done = command("train.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(words, done.stdout), done.stdout


@pytest.mark.slow
def test_ten_thousand_classes(command, tmp_path):
    y = np.arange(12_000) % 10_000
    np.savez(tmp_path / "x.npz", X=np.random.default_rng(0).normal(size=(12_000, 3)), y=y)
    arguments = ["data=files", "data.train=x.npz", "epochs=1", "batch_size=1000"]
    done = command("train.py", *arguments, "report.plots=false")
    assert done.returncode == 0, done.stderr
    assert done.memory < GIB // 2  # the scores of all examples of training are 320 MiB


@pytest.mark.parametrize("size", [1e6, 1e-6, 1e-50])
def test_features_that_one_step_cannot_suit_are_told(size, command, tmp_path):
    save(tmp_path / "x.npz", {"X": size * X})
    arguments = ["data=files", "data.train=x.npz", "report.plots=false", "epochs=9"]
    done = command("train.py", *arguments, "preprocessing=none")
    assert "use preprocessing=standardize" in done.stdout + done.stderr
    if size == 1e-50:
        assert done.returncode == 1
        assert "that float32 rounds to zero after preprocessing; use preproc" in done.stderr
        assert command("train.py", *arguments).returncode == 0
    else:
        assert done.returncode == 0, done.stderr
        assert f"the prepared features are of size {2.6 * size:.0e}"[:40] in done.stdout

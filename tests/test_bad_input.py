"""What cannot be used: a row each, with the line it gives, through the programs and from Python."""

import gzip
import io
import os
import re
import shutil
import tarfile
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


# What the file holds, and the line about it.
ARRAYS = {
    "NaN": ({"X": spoilt(np.nan, (7, 2), (9, 1))}, r"example 7 holds nan: .* \(at \[7, 2\]"),
    "infinity": ({"X": spoilt(-np.inf, (3, 0))}, r"example 3 holds -inf: .* \(at \[3, 0\]"),
    "unequal lengths": ({"y": Y[:50]}, "X holds 60 examples and y 50 labels"),
    "labels that are not whole": ({"y": Y + 0.25}, r"y\[0\]=0.25: labels must be whole"),
    "NaN label": ({"y": np.where(Y, Y, np.nan)}, r"y\[0\]=nan: labels must be whole"),
    "complex": ({"X": X.astype(complex)}, "X is complex128 of shape"),
    "text in X": ({"X": X.astype(str)}, "X is <U32 of shape"),
    "dates in X": ({"X": X.astype("datetime64[s]")}, "X is datetime64"),
    "objects": ({"X": X.astype(object)}, "X holds Python objects; save"),
    "object labels": ({"y": Y.astype(object)}, "y holds Python objects; save text as y.astype"),
    "labels that are no text": (
        {"y": np.where(Y, 97, 0x7FFFFFFF).astype("<u4").view("<U1")},
        "y holds text that is not UTF-8",
    ),
    "no features": ({"X": X[:, :0]}, r"X is float64 of shape \(60, 0\)"),
    "one axis": ({"X": X[:, 0]}, r"X is float64 of shape \(60,\);.* give X\[:, None\]"),
    "no X": ({"X": None}, "no array named X; it holds y"),
    "a column of labels": ({"y": Y[:, None]}, r"y is int64 of shape \(60, 1\)"),
}
# Only a training finds these.
TRAINING = {
    "no y": ({"y": None}, "no array named y; it holds X"),
    "no examples": ({"X": X[:0], "y": Y[:0]}, "there are no examples"),
    "one class": ({"y": 0 * Y}, "a classifier needs at least two classes, found only 0"),
    "a label an example": ({"y": np.arange(60)}, "60 different labels for as many examples"),
}


def save(path, changes):
    arrays = {name: a for name, a in ({"X": X, "y": Y} | changes).items() if a is not None}
    np.savez(path, **arrays)


def told_in_one_line(done, words):
    assert done.returncode == 1, done.stdout
    assert re.search(words, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout
    assert done.computed < 5
    assert done.memory < GIB


def load(train, **changes):
    settings = {"val": None, "test": None, "val_fraction": 0.1, "test_fraction": 0.2} | changes
    return Arrays(train=str(train), **settings).load(np.random.default_rng(0))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.npz"
    features = AffineMap(np.zeros(4), np.ones(4))
    weights = np.eye(4, 3, dtype=np.float32)
    LinearModel(weights, np.zeros(3, np.float32), np.arange(3), features, None, {}).save(path)
    return path


def refuses(path, words, model_file=None):
    """Return whether a training, and a prediction where there is a model, refuse a file so."""
    with pytest.raises((ValueError, FileNotFoundError), match=f"{path.name}: {words}"):
        load(path)
    if model_file is not None:
        places = {"input": str(path), "output": str(path.with_name("p.csv")), "outputs": "o"}
        with pytest.raises((ValueError, FileNotFoundError), match=f"{path.name}: {words}"):
            predict(PredictConfig(run=str(model_file), top_k=1, **places))
        assert not path.with_name("p.csv").exists()
    return not list(path.parent.glob(".*.part"))


@pytest.mark.parametrize("row", [*ARRAYS, *TRAINING])
def test_arrays(row, tmp_path, model_file):
    changes, words = (ARRAYS | TRAINING)[row]
    save(tmp_path / "bad.npz", changes)
    assert refuses(tmp_path / "bad.npz", words, model_file if row in ARRAYS else None)


def not_npz(folder):
    save(folder / "whole.npz", {})
    content = (folder / "whole.npz").read_bytes()
    (folder / "cut.npz").write_bytes(content[:700])
    (folder / "text.npz").write_text("X,y\n1,2\n", encoding="utf-8")
    (folder / "empty.npz").write_bytes(b"")
    np.save(folder / "x.npy", X)
    (folder / "x.npy").rename(folder / "renamed.npz")
    np.savez(folder / "pickled.npz", X=np.array([{}, []], dtype=object), y=Y)
    (folder / "folder.npz").mkdir()
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 9), }"
    with np.load(folder / "whole.npz") as whole:
        y = io.BytesIO()
        np.lib.format.write_array(y, whole["y"])
    with zipfile.ZipFile(folder / "huge.npz", "w") as archive:
        size = len(header).to_bytes(2, "little")
        archive.writestr("X.npy", b"\x93NUMPY\x01\x00" + size + header)
        archive.writestr("y.npy", y.getvalue())
    with zipfile.ZipFile(folder / "lines.npz", "w") as archive:
        archive.writestr("two\nlines.npy", y.getvalue())
    with zipfile.ZipFile(folder / "twice.npz", "w") as archive:
        archive.writestr("y.npy", y.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("y.npy", y.getvalue())


FILES = {
    "cut.npz": "an .npz file cut short",
    "text.npz": "not an .npz file; numpy.savez",
    "empty.npz": "not an .npz file; numpy.savez",
    "renamed.npz": "one array, an .npy file; ",
    "pickled.npz": "X holds Python objects",
    "folder.npz": "not a file but a folder",
    "none.npz": "no such file",
    "huge.npz": r"a damaged .npz file \(X says 7199999999928 bytes and has 0",
    "lines.npz": r"no array named X; it holds two\\nlines",
    "twice.npz": r"a damaged .npz file \(it holds y twice",
}


def test_files_that_are_no_arrays(tmp_path, model_file):
    not_npz(tmp_path)
    for name, words in FILES.items():
        assert refuses(tmp_path / name, words, model_file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"X": X[:, :3]}, r"its examples have shape \(3,\), those of data.train have \(4,\)"),
        ({"y": Y + 1}, "label 3 is in no example of data.train"),
        ({"y": (Y + 1).astype(str)}, "label 3 is in no example of data.train"),
    ],
)
def test_a_split_that_does_not_fit(changes, words, tmp_path):
    save(tmp_path / "x.npz", {})
    save(tmp_path / "v.npz", changes)
    for name in ("val", "test"):
        with pytest.raises(ValueError, match=words):
            load(tmp_path / "x.npz", **{name: str(tmp_path / "v.npz")})


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
        (train, ["data=arrays", "data.train=closed/x.npz"], "closed/x.npz: Permission denied"),
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


def hostile(kind, path):
    """Write an archive that no one should read."""
    folder = "cifar-10-batches-bin/"
    with tarfile.open(path, "w:gz") as tar:
        if kind == "leads out":
            add(tar, "../../test_batch.bin", b"x" * 3073)
        elif kind == "absolute":
            add(tar, "/etc/test_batch.bin", b"x" * 3073)
        elif kind == "symlink":
            add(tar, folder + "test_batch.bin", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        elif kind == "hard link":
            add(tar, folder + "test_batch.bin", type=tarfile.LNKTYPE, linkname="data_batch_1.bin")
        elif kind == "twice":
            add(tar, folder + "test_batch.bin", b"x" * 3073)
            add(tar, folder + "again/test_batch.bin", b"y" * 3073)
        elif kind == "large member":
            add(tar, folder + "test_batch.bin", bytes(2**26 + 1))
    if kind in ("declared bomb", "long name bomb"):
        header = tarfile.TarInfo("readme" if kind == "declared bomb" else "././@LongLink")
        header.size = 2**33
        header.type = tarfile.REGTYPE if kind == "declared bomb" else tarfile.GNUTYPE_LONGNAME
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            for _ in range(600):
                file.write(bytes(2**20))


def cifar10(root):
    settings = {"labels": "labels", "download": False, "mirror": "none", "val_fraction": 0.1}
    return Cifar(version="cifar10", root=str(root), **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("leads out", "'../../test_batch.bin': a name that leads out of the archive"),
        ("absolute", "'/etc/test_batch.bin': a name that leads out of the archive"),
        ("symlink", "test_batch.bin' is a link or a device, not a file"),
        ("hard link", "test_batch.bin' is a link or a device, not a file"),
        ("twice", "test_batch.bin' is there twice"),
        ("large member", "67108865 bytes; such a file has at most 67108864"),
        ("declared bomb", "unpacks to more than 536870912 bytes is not read"),
        ("long name bomb", "unpacks to more than 536870912 bytes is not read"),
    ],
)
def test_hostile_archives(kind, words, command, tmp_path):
    hostile(kind, tmp_path / "cifar.tar.gz")
    if "bomb" in kind:
        told_in_one_line(command("train.py", "data=cifar10", "data.root=cifar.tar.gz"), words)
    else:
        with pytest.raises(ValueError, match=words):
            cifar10(tmp_path / "cifar.tar.gz").load(None)
    assert not list(tmp_path.rglob("test_batch*"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut short", "data_batch_2.bin: .* not a whole number of 3073-byte records"),
        (
            "a label of 10",
            r"data_batch_2.bin: 1 labels outside 0 to 9, the first \(10\) of image 0",
        ),
        ("a copy", "data_batch_2.bin is a copy of data_batch_1.bin"),
        ("too large", "data_batch_2.bin: 67108865 bytes; such a file has at most"),
    ],
)
def test_damaged_cifar_files(damage, words, tmp_path, write_cifar):
    folder = write_cifar(tmp_path, "cifar-10-batches-bin")
    path = folder / "data_batch_2.bin"
    content = path.read_bytes()
    if damage == "cut short":
        path.write_bytes(content[:-100])
    elif damage == "a label of 10":
        path.write_bytes(b"\n" + content[1:])
    elif damage == "a copy":
        shutil.copy(folder / "data_batch_1.bin", path)
    else:
        os.truncate(path, 2**26 + 1)
    with pytest.raises(ValueError, match=words):
        cifar10(folder).load(None)


def test_a_model_that_is_damaged_or_old_is_told_by_name(tmp_path, model_file):
    content = model_file.read_bytes()
    with np.load(model_file) as file:
        arrays = dict(file)
    np.savez(tmp_path / "old.npz", **arrays | {"format": np.array(1)})
    kept = {name: array for name, array in arrays.items() if name != "format"}
    write_sealed(tmp_path / "future.npz", 99, kept)
    write_sealed(tmp_path / "nan.npz", FORMAT, kept | {"W": np.full((4, 3), np.nan)})
    no_text = np.array([0x7FFFFFFF], dtype="<u4").view("<U1").reshape(())
    write_sealed(tmp_path / "no_text.npz", FORMAT, kept | {"format": no_text})
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    (tmp_path / "flipped.npz").write_bytes(flipped)
    (tmp_path / "cut.npz").write_bytes(content[:-30])
    for name, words in (
        ("old", f"old.npz: model format 1, this program reads {FORMAT}; train it anew"),
        ("future", f"future.npz: model format 99, this program reads {FORMAT}"),
        ("nan", "nan.npz: a damaged model file"),
        ("no_text", "no_text.npz: not a model file; it holds "),
        ("flipped", "flipped.npz: a damaged "),
        ("cut", "cut.npz: (a damaged model file|an .npz file cut short)"),
    ):
        with pytest.raises(ValueError, match=words):
            LinearModel.load(tmp_path / f"{name}.npz")


def test_every_byte_of_a_model_counts(model_file, tmp_path):
    content = model_file.read_bytes()
    path = tmp_path / "model.npz"
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.npz: "):
            LinearModel.load(path)


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
def test_what_is_odd_but_can_be_used(row, in_process, tmp_path):
    changes, words = ODD[row]
    save(tmp_path / "x.npz", changes)
    arguments = ["data=arrays", "data.train=x.npz", "report.plots=false", "epochs=9"]
    done = in_process("train.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(words, done.stdout), done.stdout


@pytest.mark.slow
def test_ten_thousand_classes(command, tmp_path):
    y = np.arange(12_000) % 10_000
    np.savez(tmp_path / "x.npz", X=np.random.default_rng(0).normal(size=(12_000, 3)), y=y)
    arguments = ["data=arrays", "data.train=x.npz", "epochs=1", "batch_size=1000"]
    done = command("train.py", *arguments, "report.plots=false")
    assert done.returncode == 0, done.stderr
    assert done.memory < GIB // 2  # the scores of all examples of training are 320 MiB


@pytest.mark.parametrize("size", [1e6, 1e-6])
def test_features_that_one_step_cannot_suit_are_told(size, in_process, tmp_path):
    save(tmp_path / "x.npz", {"X": size * X})
    arguments = ["data=arrays", "data.train=x.npz", "preprocessing=none", "report.plots=false"]
    done = in_process("train.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert f"the prepared features are of size {2.6 * size:.0e}"[:40] in done.stdout
    assert "use preprocessing=standardize" in done.stdout


def test_values_that_float32_rounds_to_zero_are_refused(in_process, tmp_path):
    save(tmp_path / "x.npz", {"X": 1e-50 * X})
    arguments = ["data=arrays", "data.train=x.npz", "epochs=1", "report.plots=false"]
    done = in_process("train.py", *arguments, "preprocessing=none")
    assert done.returncode == 1
    assert "that float32 rounds to zero after preprocessing; use preprocessing=" in done.stderr
    assert in_process("train.py", *arguments).returncode == 0

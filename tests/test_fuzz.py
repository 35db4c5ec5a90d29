"""Real files with bytes changed, cut, doubled and moved: only the program's own errors come of it.

FUZZ=50000 tries so many of each kind of file; the suite tries a few.
"""

import contextlib
import os
import resource
import signal
from random import Random

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import csr_array, save_npz

from classifier.model import LinearModel
from classifier.runs.artifacts import read_checkpoint
from data.errors import InputError
from data.files.arrays import DIGITS, checksum, open_npy, read_npz
from data.files.matrices import read_sparse_npz, read_svmlight
from data.files.pickles import read_pickle
from data.files.pictures import open_pictures
from data.files.table import open_table
from data.files.tensors import open_tensors
from data.preprocessing import check_finite
from data.sources.cifar import Source

TRIED = int(os.environ.get("FUZZ", "100"))
MEMORY = 2**29  # bytes that the peak may grow by
SECONDS = 5
FILES = "table sparse svmlight npz npy model checkpoint pickle records archive".split()
PICTURES = "jpg png gif bmp webp tif".split()
TENSORS = ["safetensors", "pt", "h5"]  # where the package is installed that writes them

KINDS = ["set", "cut", "double", "zero", "number", "move"]


def mutated(data, random):
    """Return a file with up to four changes of up to 64 bytes each."""
    for _ in range(random.randint(1, 4)):
        place, value = random.randrange(len(data) + 1), random.randrange(256)
        before, after = data[:place], data[place + random.randint(1, 64) :]
        piece = data[place : len(data) - len(after)]
        data = {
            "set": before + bytes([value]) + data[place + 1 :],
            "number": before + (2**31 - value).to_bytes(4, "little") + data[place + 4 :],
            "cut": before,
            "double": before + piece + piece + after,
            "zero": before + bytes(len(piece)) + after,
            "move": before + after + piece,
        }[random.choice(KINDS)]
    return data


def write_tensors(folder, X):
    """Write X as each kind of file does for which there is a package: as it is, and converted."""
    with contextlib.suppress(ImportError):
        from safetensors.numpy import save_file

        save_file({"X": X, "y": np.arange(12)}, folder / "X.safetensors")
    with contextlib.suppress(ImportError):
        import torch

        X_torch = torch.from_numpy(X)
        y = torch.arange(12)
        torch.save(
            {"X": X_torch, "T": X_torch.t(), "b": X_torch.bfloat16(), "y": y}, folder / "X.pt"
        )
    with contextlib.suppress(ImportError):
        import h5py

        with h5py.File(folder / "X.h5", "w") as file:
            file["X"] = X
            file.create_dataset("in/chunks", data=X, chunks=(5, 2), compression="gzip")
            file["y"] = ["a", "b"] * 6


def resealed(path):
    """Give a changed file a seal that is right, as a hostile writer would."""
    with path.open("r+b") as file:
        if file.seek(0, os.SEEK_END) > DIGITS:
            file.write(checksum(file))  # which stops before the seal


@pytest.fixture(scope="module")
def originals(tmp_path_factory, command_in, write_cifar, archive):
    """One real file of every kind, and how it is read."""
    folder = tmp_path_factory.mktemp("fuzz")
    X, y = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 3
    np.savez_compressed(folder / "c.npz", X=X, y=y)
    for name, array in {"X": X, "y": y}.items():
        np.save(folder / f"{name}.npy", array)
    arguments = ["data=blobs", "epochs=2", "hydra.run.dir=run", "report.plots=false"]
    assert command_in(folder, "train.py", *arguments).returncode == 0
    python, binary = (write_cifar(folder, f"cifar-10-batches-{form}") for form in ("py", "bin"))
    packed = archive(binary, folder / "packed.tar.gz")

    def cifar(root):
        options = {"download": False, "mirror": "none", "val_fraction": 0.1}
        source = Source(version="cifar10", labels="labels", root=str(root), **options)
        return source.load(np.random.default_rng(0))

    def table(path):
        for batch in open_table([path]).batches():
            for cells in batch.values():
                cells.numbers()

    def rows(path):
        check_finite(open_npy(str(path)))

    def all_tensors(path):
        for read in open_tensors(path, folder / "cache").values():
            read()[:]

    def picture(path):
        open_pictures([path], 8, folder / "cache")

    write_tensors(folder, X)
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for kind in PICTURES:
        Image.fromarray(noise).save(folder / f"X.{kind}")

    def records(path):
        (binary / "data_batch_1.bin").write_bytes(path.read_bytes())
        return cifar(binary)

    save_npz(folder / "s.npz", csr_array(X * (X > 0)))
    (folder / "x.csv").write_text("a;b\n0.5;x\n" * 9 + '-1;"2\n3"\n')
    (folder / "x.svm").write_text("1 1:0.5 7:-2\n-1 2:1e3 # comment\n" * 9)

    return {
        "table": (folder / "x.csv", table),
        "sparse": (folder / "s.npz", lambda path: read_sparse_npz(str(path))),
        "svmlight": (folder / "x.svm", lambda path: read_svmlight(str(path))),
        "npz": (folder / "c.npz", lambda path: read_npz(str(path), ["X", "y"])),
        "npy": (folder / "X.npy", rows),
        "model": (folder / "run/model.npz", LinearModel.load),
        "checkpoint": (folder / "run/checkpoint.npz", read_checkpoint),
        "pickle": (python / "batches.meta", lambda path: read_pickle(path.read_bytes(), "x")),
        "records": (folder / "cifar-10-batches-bin/data_batch_1.bin", records),
        "archive": (packed, cifar),
        **{kind: (folder / f"X.{kind}", all_tensors) for kind in TENSORS},
        **{kind: (folder / f"X.{kind}", picture) for kind in PICTURES},
    }


@pytest.mark.parametrize("kind", [*FILES, *TENSORS, *PICTURES])
def test_changed_files_give_no_other_errors(kind, originals, tmp_path):
    path, read = originals[kind]
    if not path.exists():
        pytest.skip(f"nothing here writes {kind}")
    content = path.read_bytes()
    changed, told = tmp_path / f"changed{path.suffix}", []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    earlier = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"over {SECONDS} s"))

    try:
        read(path)  # as it is, or the attack would prove nothing
        for seed in range(TRIED):
            random = Random(seed)
            changed.write_bytes(mutated(content, random))
            if kind in ("model", "checkpoint") and random.random() < 0.5:
                resealed(changed)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                read(changed)
            except (InputError, FileNotFoundError) as error:
                told.append(str(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
        path.write_bytes(content)
    assert told
    assert not any("\n" in line for line in told)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MEMORY

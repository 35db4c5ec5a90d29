"""Real files with bytes changed, cut, doubled and moved: only the program's own errors come of it.

FUZZ=50000 tries so many of each kind of file; the suite tries a few.
"""

import os
import resource
import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.model import LinearModel
from classifier.runs.artifacts import read_checkpoint
from data.errors import InputError
from data.files.arrays import DIGITS, checksum
from data.preprocessing import check_finite
from data.sources.cifar import Source
from data.sources.files import read_examples
from data.sources.pickles import read_pickle

TRIED = int(os.environ.get("FUZZ", "150"))
MEMORY = 2**29  # bytes that the peak may grow by
SECONDS = 5
FILES = ["npz", "npy", "model", "checkpoint", "pickle", "records", "archive"]

KINDS = st.sampled_from(["set", "cut", "double", "zero", "number", "move"])
PLACES, VALUES, LENGTHS = st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.integers(1, 64)
MUTATIONS = st.lists(st.tuples(KINDS, PLACES, VALUES, LENGTHS), min_size=1, max_size=4)


def mutated(data, mutations):
    for kind, where, value, length in mutations:
        place = int(where * len(data))
        before, piece, after = data[:place], data[place : place + length], data[place + length :]
        data = {
            "set": before + bytes([value]) + data[place + 1 :],
            "number": before + (2**31 - value).to_bytes(4, "little") + data[place + 4 :],
            "cut": before,
            "double": before + piece + piece + after,
            "zero": before + bytes(len(piece)) + after,
            "move": before + after + piece,
        }[kind]
    return data


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

    def rows(path):
        check_finite(read_examples(str(path), str(folder / "y.npy"))[0])

    def records(path):
        (binary / "data_batch_1.bin").write_bytes(path.read_bytes())
        return cifar(binary)

    return {
        "npz": (folder / "c.npz", lambda path: read_examples(str(path))),
        "npy": (folder / "X.npy", rows),
        "model": (folder / "run/model.npz", LinearModel.load),
        "checkpoint": (folder / "run/checkpoint.npz", read_checkpoint),
        "pickle": (python / "batches.meta", lambda path: read_pickle(path.read_bytes(), "x")),
        "records": (folder / "cifar-10-batches-bin/data_batch_1.bin", records),
        "archive": (packed, cifar),
    }


@pytest.mark.parametrize("kind", FILES)
def test_changed_files_give_no_other_errors(kind, originals, tmp_path):
    path, read = originals[kind]
    content = path.read_bytes()
    changed, told = tmp_path / "changed", []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    earlier = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"over {SECONDS} s"))

    @settings(max_examples=TRIED, database=None, suppress_health_check=list(HealthCheck))
    @given(MUTATIONS, st.booleans())
    def attack(mutations, reseal):
        changed.write_bytes(mutated(content, mutations))
        if reseal and kind in ("model", "checkpoint"):
            resealed(changed)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            read(changed)
        except (InputError, FileNotFoundError) as error:
            told.append(str(error))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    try:
        read(path)  # as it is, or the attack would prove nothing
        attack()
    finally:
        signal.signal(signal.SIGALRM, earlier)
        path.write_bytes(content)
    assert told
    assert not any("\n" in line for line in told)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MEMORY

"""What several tests need: the note's numbers, the repository, commands, CIFAR-shaped files."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings

# A first example may import PyTorch, and the machine may be busy: no deadline. CI repeats itself.
settings.register_profile("project", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("project")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def repository():
    return REPOSITORY


@pytest.fixture(scope="session")
def note():
    """The arrays and the printed results of the teaching note, in float32 as it had them."""
    numbers = json.loads((REPOSITORY / "docs/notebook_numbers.json").read_text(encoding="utf-8"))
    return SimpleNamespace(
        W=np.array(numbers["W"], dtype=np.float32),
        X=np.array(numbers["X"], dtype=np.float32),
        y=np.array(numbers["y"]),
        loss=numbers["loss_torch"],
        dW=np.array(numbers["dW_vectorized_printed"]),
    )


class ForkServer:
    """What runs programs without the second that importing packages takes."""

    def __init__(self, environment, before=(), imports=()):
        self._lock = threading.Lock()
        self.process = subprocess.Popen(
            [*before, sys.executable, str(REPOSITORY / "tests/fork_server.py"), *imports],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request):
        """Return the answer to a request."""
        with self._lock:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())

    def start(self, arguments, folder, said, environment=None):
        """Start a script of the repository, or a module after -m; it writes into the folder `said`.

        Returns
        -------
        The program, with the methods of a `subprocess.Popen`.
        """
        return Program(self, arguments, folder, said, environment or {})

    def close(self):
        """End the server."""
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


class Program:
    """A process of the fork server's, which gets signals as any other."""

    def __init__(self, server, arguments, folder, said, environment):
        first, *others = map(str, arguments)
        begin = {
            "arguments": [first if first == "-m" else str(REPOSITORY / first), *others],
            "folder": str(folder),
            "environment": environment,
            "stdout": str(said / "stdout"),
            "stderr": str(said / "stderr"),
        }
        self._server, self._said = server, said
        self.returncode = self.seconds = self.computed = self.memory = None
        self.pid = server.ask(start=begin)

    @property
    def stdout(self):
        """What it has said so far."""
        return self._read("stdout")

    @property
    def stderr(self):
        """Its warnings and mistakes so far."""
        return self._read("stderr")

    def _read(self, stream):
        return (self._said / stream).read_text(encoding="utf-8")

    def poll(self, *, block=False):
        """Return the exit code, or None while it runs."""
        if self.returncode is None:
            ended = self._server.ask(wait=self.pid, block=block)
            if ended is not None:
                self.returncode, self.seconds = ended["code"], ended["seconds"]
                self.computed, self.memory = ended["computed"], ended["memory"]
        return self.returncode

    def wait(self, timeout=60):
        """Wait for its end; return the exit code."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout, self.stdout, self.stderr)
            time.sleep(0.005)
        return self.returncode

    def communicate(self, timeout=60):
        """Wait for its end; return what it said on stdout and on stderr."""
        self.wait(timeout)
        return self.stdout, self.stderr

    def send_signal(self, number):
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self):
        """End it."""
        self.send_signal(signal.SIGKILL)


@pytest.fixture(scope="session")
def make_fork_server():
    """Start a server of programs in an environment.

    `before` is a command that starts it, `imports` are modules that its programs will need.
    """
    return ForkServer


@pytest.fixture(scope="session")
def fork_server(make_fork_server):
    """Start the server that runs programs without the second that importing packages takes."""
    server = make_fork_server({**os.environ, "PYTHONPATH": str(REPOSITORY)})
    yield server
    server.close()


@pytest.fixture
def start(fork_server, tmp_path, tmp_path_factory):
    """Start a program of the repository in an empty folder; what runs at the end is killed."""
    begun = []

    def begin(script, *arguments, cwd=tmp_path, **environment):
        said = tmp_path_factory.mktemp("said")
        begun.append(fork_server.start([script, *arguments], cwd, said, environment))
        return begun[-1]

    yield begin
    for program in begun:
        program.kill()
        program.poll(block=True)


@pytest.fixture(scope="session")
def command_in(fork_server, tmp_path_factory):
    """Run a program of the repository in a process in a folder, as a user does, to its end."""

    def run(folder, *arguments, **environment):
        said = tmp_path_factory.mktemp("said")
        program = fork_server.start(arguments, folder, said, environment)
        program.poll(block=True)
        return SimpleNamespace(
            returncode=program.returncode,
            seconds=program.seconds,
            computed=program.computed,
            memory=program.memory,
            stdout=program.stdout,
            stderr=program.stderr,
        )

    return run


@pytest.fixture
def command(command_in, tmp_path):
    """Run a program of the repository in an empty folder."""

    def run(*arguments, cwd=tmp_path):
        return command_in(cwd, *arguments)

    return run


CIFAR10_NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()


@pytest.fixture(scope="session")
def cifar_images():
    """60 random images in ten classes: (N, 3072) bytes, plane by plane, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 10
    planes = rng.integers(0, 256, (60, 3072), dtype=np.uint8)
    planes[:, :1024] = (planes[:, :1024] // 4 + 19 * labels[:, None]).astype(np.uint8)
    return planes, labels


@pytest.fixture(scope="session")
def write_cifar(cifar_images):
    """Write those images in one of the four official layouts into a folder; return the folder."""

    def write(root: Path, layout: str) -> Path:
        planes, labels = cifar_images
        files = _cifar_files(planes, labels, layout)
        folder = root / layout
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    return write


@pytest.fixture(scope="session")
def archive():
    """Pack a folder as the official archives are packed; return the archive."""

    def pack(folder: Path, path: Path) -> Path:
        with tarfile.open(path, "w:gz") as tar:
            tar.add(folder, arcname=folder.name)
        return path

    return pack


def _cifar_files(planes, labels, layout):
    rows = np.array_split(np.arange(50), 5)
    fine, coarse = labels * 7 % 10, labels // 2
    if layout == "cifar-10-batches-py":
        batches = {f"data_batch_{i + 1}": r for i, r in enumerate(rows)}
        batches["test_batch"] = np.arange(50, 60)
        files = {
            name: _old_pickle({"data": planes[r], "labels": labels[r].tolist()})
            for name, r in batches.items()
        }
        return files | {"batches.meta": _old_pickle({"label_names": CIFAR10_NAMES})}
    if layout == "cifar-10-batches-bin":
        batches = {f"data_batch_{i + 1}.bin": r for i, r in enumerate(rows)}
        batches["test_batch.bin"] = np.arange(50, 60)
        files = {n: _records(planes[r], labels[r]) for n, r in batches.items()}
        return files | {"batches.meta.txt": ("\n".join(CIFAR10_NAMES) + "\n\n").encode()}
    splits = {"train": np.arange(50), "test": np.arange(50, 60)}
    fine_names, coarse_names = [f"fine{i}" for i in range(10)], [f"coarse{i}" for i in range(5)]
    if layout == "cifar-100-python":
        files = {
            name: _old_pickle(
                {
                    "data": planes[r],
                    "fine_labels": fine[r].tolist(),
                    "coarse_labels": coarse[r].tolist(),
                }
            )
            for name, r in splits.items()
        }
        names = {"fine_label_names": fine_names, "coarse_label_names": coarse_names}
        return files | {"meta": _old_pickle(names)}
    files = {f"{n}.bin": _records(planes[r], coarse[r], fine[r]) for n, r in splits.items()}
    return files | {
        "fine_label_names.txt": "\n".join(fine_names).encode(),
        "coarse_label_names.txt": "\n".join(coarse_names).encode(),
    }


def _records(planes, *labels):
    return np.column_stack([*labels, planes]).astype(np.uint8).tobytes()


def _old_pickle(content):
    """Pickle as the official files are: protocol 2, the names as byte strings."""
    buffer = io.BytesIO()
    pickle.dump({key.encode(): _bytes(value) for key, value in content.items()}, buffer, 2)
    return buffer.getvalue()


def _bytes(value):
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [text.encode() for text in value]
    return value

"""What several tests need: the note's numbers, the repository, commands, CIFAR-shaped files."""

import copy
import functools
import json
import logging
import os
import pickle
import shutil
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


def pytest_collection_modifyitems(items):
    """Put files with slow tests first: of several processes none has a long one left at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def repository():
    return REPOSITORY


@pytest.fixture(scope="session")
def note():
    """The arrays and the printed results of the teaching note, in float32 as it had them."""
    numbers = json.loads(
        (REPOSITORY / "docs/lesson/notebook_numbers.json").read_text(encoding="utf-8")
    )
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

    def start(self, arguments, folder, outputs, **environment):
        """Start a script of the repository, or what follows -m or -c; it prints into a folder."""
        first, *others = map(str, arguments)
        arguments = [first if first in ("-m", "-c") else str(REPOSITORY / first), *others]
        places = {"folder": str(folder), "outputs": str(outputs)}
        return Program(self, arguments=arguments, environment=environment, **places)

    def close(self):
        """End the server."""
        self.process.communicate(timeout=30)


class Program:
    """A process of the fork server's, which gets signals as any other; as a `subprocess.Popen`."""

    def __init__(self, server, **request):
        self._server, self._outputs = server, Path(request["outputs"])
        self.returncode = self.computed = self.memory = None
        self.pid = server.ask(start=request)

    @property
    def stdout(self):
        """What it has said so far."""
        return (self._outputs / "stdout").read_text(encoding="utf-8")

    @property
    def stderr(self):
        """Its warnings and mistakes so far."""
        return (self._outputs / "stderr").read_text(encoding="utf-8")

    @property
    def refusal(self):
        """The one line with which it has ended badly."""
        assert self.returncode in (1, 2), self.stdout + self.stderr
        (line,) = self.stderr.splitlines()
        return line

    def poll(self, *, block=False):
        """Return the exit code, or None while it runs."""
        if self.returncode is None:
            ended = self._server.ask(wait=self.pid, block=block)
            if ended is not None:
                self.returncode, self.computed, self.memory = ended
        return self.returncode

    def until(self, condition, seconds=120):
        """Wait until something is so that the program is to bring about, or the program has ended.

        What has become of it is for the test to see.
        """
        end = time.monotonic() + seconds
        while not condition() and self.poll() is None and time.monotonic() < end:
            time.sleep(0.002)

    def wait(self, timeout=300):
        """Wait for its end; return the exit code."""
        self.until(lambda: False, timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout, self.stdout, self.stderr)
        return self.returncode

    def communicate(self, timeout=300):
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
    """Start a server of programs: by a command `before` it, with `imports` that these will need."""
    return ForkServer


@pytest.fixture(scope="session")
def fork_server():
    """Start the server that runs programs without the second that importing packages takes."""
    server = ForkServer({**os.environ, "PYTHONPATH": str(REPOSITORY)}, imports=["scipy.special"])
    yield server
    server.close()


@pytest.fixture
def start(fork_server, tmp_path, tmp_path_factory):
    """Start a program of the repository in an empty folder; what runs at the end is killed."""
    begun = []

    def begin(*arguments, cwd=tmp_path):
        outputs = tmp_path_factory.mktemp("outputs")
        begun.append(fork_server.start(arguments, cwd, outputs))
        return begun[-1]

    yield begin
    for program in begun:
        program.kill()
        program.poll(block=True)


@pytest.fixture(scope="session")
def command_in(fork_server, tmp_path_factory):
    """Run a program of the repository in a process in a folder, as a user does, to its end."""

    def run(folder, *arguments, **environment):
        outputs = tmp_path_factory.mktemp("outputs")
        program = fork_server.start(arguments, folder, outputs, **environment)
        program.poll(block=True)
        return program

    return run


@pytest.fixture
def command(command_in, tmp_path):
    """Run a program of the repository in an empty folder."""
    return lambda *arguments, cwd=tmp_path: command_in(cwd, *arguments)


@pytest.fixture(scope="module")
def job_of():
    """Return a job in a folder with the real config and some overrides, without Hydra around it.

    What is composed once for the choices of some groups is composed once: it takes 0.1 s.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    from classifier.runs.config import Job, keys_of, make_config, plain_config, register_schemas
    from classifier.shell.hydra_compat import VERSION_BASE

    register_schemas()
    configs = REPOSITORY / "configs"
    parser = OverridesParser.create()

    @functools.cache
    def composed(*choices):
        config = compose("train", [*choices], return_hydra_config=True)
        return OmegaConf.masked_copy(config, keys_of(config)), dict(config.hydra.runtime.choices)

    def job(folder, *overrides):
        given = ["report.plots=false", *overrides]
        groups = [text for text in given if (configs / text.partition("=")[0]).is_dir()]
        config, choices = composed(*groups)
        config = copy.deepcopy(config)
        for override in parser.parse_overrides([text for text in given if text not in groups]):
            OmegaConf.update(config, override.key_or_group, override.value(), merge=False)
        return Job(make_config(config), plain_config(config, choices), folder)

    with initialize_config_dir(str(configs), **VERSION_BASE):
        yield job


@pytest.fixture
def refusal(job_of, monkeypatch):
    """Return what a program says of arguments before it begins, in this process.

    Hydra itself is set up by `job_of`.
    """
    from hydra import compose

    from classifier.runs.config import Config, PredictConfig
    from classifier.shell.command import Guard, with_files
    from classifier.shell.hints import explain, refuse_arguments
    from classifier.shell.resume import resumed_arguments

    def begin(program, arguments):
        schema = Config if program == "train.py" else PredictConfig
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        refuse_arguments(arguments, schema)
        try:
            given = with_files(resumed_arguments(arguments))
            Guard().on_run_start(compose("train", given, return_hydra_config=True))
        except Exception as error:
            sys.exit(explain(error, schema))

    def told(program, *arguments):
        with pytest.raises(SystemExit) as end:
            begin(program, [*arguments])
        return str(end.value.code)

    return told


@pytest.fixture(scope="session")
def browser():
    """Return a headless chromium; what it fetches and what it complains of is kept."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        if "CI" in os.environ:
            pytest.fail("CI has no chromium with its chromedriver")
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = "no-sandbox disable-gpu disable-background-networking disable-component-update"
    for switch in f"headless=new {quiet} disable-sync no-first-run".split():
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def open_page(browser):
    """Open a page for a reader who prefers something; complaints and fetching fail the test."""

    def open_it(address, width=1100, scheme="light", motion="no-preference"):
        preferred = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        features = [{"name": name, "value": value} for name, value in preferred.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(address)
        return browser

    browser.get_log("browser")
    browser.get_log("performance")
    yield open_it
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    addresses = [request["request"]["url"] for request in sent]
    assert addresses
    assert {address.partition(":")[0] for address in addresses} <= {"file", "data"}


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
        folder = root / layout
        folder.mkdir(parents=True)
        for name, content in _cifar_files(*cifar_images, layout).items():
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
    rows = {f"data_batch_{i + 1}": np.arange(10 * i, 10 * i + 10) for i in range(5)}
    rows["test_batch"] = np.arange(50, 60)
    words = "airplane automobile bird cat deer dog frog horse ship truck"
    columns, names = {"labels": labels}, {"label_names": words.split()}
    meta, texts = "batches.meta", ["batches.meta.txt"]
    if layout.startswith("cifar-100"):
        rows = {"train": np.arange(50), "test": np.arange(50, 60)}
        columns = {"coarse_labels": labels // 2, "fine_labels": labels * 7 % 10}
        names = {
            "fine_label_names": [f"fine{i}" for i in range(10)],
            "coarse_label_names": [f"coarse{i}" for i in range(5)],
        }
        meta, texts = "meta", [f"{key}.txt" for key in names]
    if "bin" in layout:
        whole = np.column_stack([*columns.values(), planes]).astype(np.uint8)
        lists = dict(zip(texts, names.values(), strict=True))
        return {f"{name}.bin": whole[r].tobytes() for name, r in rows.items()} | {
            name: ("\n".join(words) + "\n\n").encode() for name, words in lists.items()
        }
    # As the official files are: protocol 2, the names as byte strings.
    contents = {
        name: {"data": planes[r]} | {key: column[r].tolist() for key, column in columns.items()}
        for name, r in rows.items()
    }
    contents[meta] = {key: [word.encode() for word in words] for key, words in names.items()}
    return {
        name: pickle.dumps({key.encode(): value for key, value in content.items()}, protocol=2)
        for name, content in contents.items()
    }


@pytest.fixture(autouse=True)
def log_of_runs(monkeypatch):
    """A stack that is trained in this process keeps its lines from the terminal for good."""
    log = logging.getLogger("softmax.run")
    monkeypatch.setattr(log, "propagate", log.propagate)

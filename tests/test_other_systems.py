"""What other systems have not got and no type check sees; the program itself sees Linux else."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

NAMES = ["Ä", "猫", "ß"]
ELSEWHERE = """
import builtins, io, os, runpy, sys
root, refused, real = sys.argv[1], set(), (builtins.__import__, io.open, os.replace)

def find(name, globals=None, *more, **options):
    asks = str((globals or {}).get("__file__"))
    is_ours = asks.startswith(root) and "site-packages" not in asks  # a .venv stands here too
    if name in ("fcntl", "pwd", "resource") and is_ours:
        raise ModuleNotFoundError(name)
    return real[0](name, globals, *more, **options)

def opened(file, mode="r", buffering=-1, encoding=None, *more, **options):
    if "b" not in mode and encoding in (None, "locale"):
        encoding = "cp1252"
    return real[1](file, mode, buffering, encoding, *more, **options)

def refuse(code, text):
    error = PermissionError(13, text)
    error.winerror = code
    raise error

def replace(source, target, **options):
    if str(target) not in refused:  # somebody reads it, and is done soon
        refused.add(str(target))
        refuse(32, "The file is being used by another process")
    return real[2](source, target, **options)

builtins.__import__, builtins.open, io.open, os.replace = find, opened, opened, replace
os.symlink = os.link = lambda *_, **__: refuse(1314, "A required privilege is not held")
for name in ("fork", "preadv", "pread", "sched_getaffinity"):
    delattr(os, name)
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
sys.exit(0 if refused else "no file was replaced")
"""


@pytest.mark.slow
def test_the_commands_where_links_and_fcntl_are_missing_and_files_are_in_use(repository, tmp_path):
    folder = tmp_path / "Läufe mit 猫"
    folder.mkdir()
    y = np.arange(300) % 3
    X = np.random.default_rng(0).standard_normal((300, 8)) + 2 * np.eye(3, 8)[y]
    np.savez(folder / "猫.npz", X=X, y=np.array(NAMES)[y])

    def run(program, *arguments):
        script = [sys.executable, "-c", ELSEWHERE, f"{repository}{os.sep}", repository / program]
        environment = os.environ | {"PYTHONPATH": str(repository), "PYTHONIOENCODING": "cp1252"}
        pipes = {"capture_output": True, "env": environment}
        done = subprocess.run([*script, *arguments], cwd=folder, check=False, **pipes)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode("cp1252")
        assert b"does not point to this run" not in done.stdout

    data = ["data=files", "data.train='猫.npz'", "epochs=5"]
    run("train.py", *data)
    run("train.py", "-m", "lr_scale=0.5,1", *data, "hydra.sweep.dir=sweep")
    run("predict.py", "run=latest", "input='猫.npz'", "output='猫.csv'")
    outputs = folder / "outputs"
    latest = outputs / (outputs / "latest.txt").read_text(encoding="utf-8").strip()
    for place in (latest, folder / "sweep/0", folder / "sweep/best"):
        assert json.loads((place / "report.json").read_text(encoding="utf-8"))["epochs"] == 5
        page = (place / "report.html").read_text(encoding="utf-8")
        assert all(name in page for name in NAMES)
    assert not (outputs / "latest").exists()
    with (folder / "猫.csv").open(newline="", encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == NAMES * 100

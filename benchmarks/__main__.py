"""The command line: `python -m benchmarks`."""

import argparse
import datetime
import gc
import importlib.metadata
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

from threadpoolctl import threadpool_info

from benchmarks import commands, problems, scale, training
from benchmarks.measure import Table
from data.machine import blas_threads, cores, memory

KERNELS = os.environ.get("OPENBLAS_CORETYPE", "")  # chosen by hand: results of their own
RESULTS = Path(__file__).parent / f"RESULTS{f'.{KERNELS}' if KERNELS else ''}.md"
PACKAGES = ["numpy", "scipy", "scikit-learn", "torch", "jax", "hydra-core"]

CASES: dict[str, Callable[[int, bool], Table]] = {
    "epoch_digits": lambda n, q: training.epochs(problems.digits(), 64, 2 if q else 50, n),
    "epoch_mnist": lambda n, q: training.epochs(problems.mnist(quick=q), 256, 1, n),
    "epoch_cifar": lambda n, q: training.epochs(problems.cifar(quick=q), 256, 1, n),
    "epoch_probe": lambda n, q: training.epochs(problems.embeddings(quick=q), 256, 1, n),
    "stacks": lambda n, q: training.epochs(problems.cifar(quick=q), 256, 1, n, (64, 16, 4, 1)),
    "optimum_mnist": lambda n, q: training.optimum(problems.mnist(quick=q), [1e-4], n, q),
    "optimum_digits": lambda n, q: training.optimum(
        problems.digits(), [1e-2] if q else [1e-2, 1e-4, 1e-6], n, q
    ),
    "path_mnist": lambda n, q: training.path(problems.mnist(quick=q), n, q),
    "path_probe": lambda n, q: training.path(problems.probe(quick=q), n, q),
    "path_digits": lambda n, q: training.path(problems.digits(), n, q),
    "path_folds": lambda n, q: training.folds(problems.probe(quick=q), n, q),
    "streamed": commands.streamed,
    "commands": commands.commands,
    "commands_images": commands.images,
    "scale": scale.scale,
    "sweep": commands.sweep,
}


def main() -> None:
    """Run the chosen cases, print each table when it is there, and write all where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Time this program beside its peers."
    )
    chosen = f"{', '.join(CASES)}; the word before a _ chooses all that begin with it"
    groups = [*CASES, *(name.partition("_")[0] for name in CASES)]
    parser.add_argument("--only", nargs="+", choices=groups, metavar="CASE", help=chosen)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    parser.add_argument("--quick", action="store_true", help="small arrays, one round")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {RESULTS.name}")
    arguments = parser.parse_args()
    if arguments.write and arguments.quick:
        parser.error("--write is not for a --quick run")
    rounds = 1 if arguments.quick else arguments.rounds
    print(_head(), flush=True)
    for name, case in CASES.items():
        if arguments.only and not {name, name.partition("_")[0]} & {*arguments.only}:
            continue
        table = _dated(str(case(rounds, arguments.quick)), rounds, arguments.quick)
        print(table, flush=True)
        if arguments.write:
            _write(table)
        gc.collect()  # gigabytes of examples, before the next case makes its own


def _dated(table: str, rounds: int, quick: bool) -> str:
    """Return a table that says when and on what it was measured."""
    kind = "a quick run on small arrays: its figures mean nothing" if quick else f"{rounds} rounds"
    heading, rest = table.split("\n", 1)
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    (name,) = re.findall(r"^model name\s*: (.*)$", text, re.MULTILINE)[:1] or [platform.machine()]
    machine = f"{name}, {cores()} cores, {memory() / 2**30:.0f} GiB of memory"
    return f"{heading}\n\nMeasured {datetime.date.today():%Y-%m-%d}, {kind}; {machine}.\n{rest}"


def _write(table: str) -> None:
    """Put a table in the place of the one with the same title, or at the end."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    sections = {s.split("\n", 1)[0]: s for s in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]}
    sections[table.split("\n", 1)[0]] = table
    whole = "\n".join(part.rstrip() + "\n" for part in [_head(), *sections.values()])
    RESULTS.write_text(whole, encoding="utf-8")


def _head() -> str:
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    versions = [f"{name} {installed.get(name, 'not installed')}" for name in PACKAGES]
    kernels = {str(pool.get("architecture", "")) for pool in threadpool_info()} - {""}
    return f"""# Benchmarks

`python -m benchmarks`. Ratios are of medians, to the contender with ratio 1;
above 1 is slower. Versions and threads are those of the last table measured.

- {platform.system()} {platform.release()}, Python {platform.python_version()}
- {", ".join(versions)}
- {blas_threads()} threads for every contender, {" and ".join(sorted(kernels))} kernels
"""


if __name__ == "__main__":
    main()

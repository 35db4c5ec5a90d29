"""The machine and the versions of what runs on it."""

import importlib.metadata
import platform
from pathlib import Path

from threadpoolctl import threadpool_info

from data.machine import cores, memory

PACKAGES = ["numpy", "scipy", "scikit-learn", "torch", "jax", "hydra-core"]


def n_threads() -> int:
    """Return the threads that numpy's BLAS uses, which are everyone's."""
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return int(max(blas, default=cores()))


def describe() -> list[str]:
    """Return a line each on processor, memory, system, versions and BLAS."""
    return [
        f"{_processor()}, {cores()} cores, {memory() / 2**30:.0f} GiB of memory",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        *sorted({_library(pool) for pool in threadpool_info()}),
        f"{n_threads()} threads for every contender",
    ]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _library(pool: dict) -> str:
    version = f" {pool['version']}" if pool["version"] else ""
    kernels = f", {pool['architecture']} kernels" if "architecture" in pool else ""
    return f"{pool['prefix']}{version}: {pool['num_threads']} threads{kernels}"

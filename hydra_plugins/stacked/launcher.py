"""What Hydra's plugin discovery needs to find the stacked launcher, and no more.

Hydra imports this file at every start, so the launcher itself is imported where it is used.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher


class StackedLauncher(Launcher):
    """Hands over to `classifier.sweep.launcher.StackedLauncher`."""

    def __init__(self, **options: Any) -> None:
        from classifier.sweep.launcher import StackedLauncher as Stacked

        self.launcher = Stacked(**options)

    def setup(self, **handed: Any) -> None:
        """Hand over what Hydra gives."""
        self.launcher.setup(**handed)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Hand over the jobs."""
        return self.launcher.launch(job_overrides, initial_job_idx)


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper without its composition of every job, which the launcher does."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Leave it to the launcher, which tells what is wrong with a job in the job's folder."""


@dataclasses.dataclass
class StackedLauncherConf:
    """The keys of hydra.launcher; `classifier.sweep.launcher` says what they mean."""

    _target_: str = "hydra_plugins.stacked.launcher.StackedLauncher"
    backend: str = "local"
    n_jobs: int | None = None
    max_stack: int | None = None
    address: str | None = None


@dataclasses.dataclass
class GridSweeperConf:
    """The keys of hydra.sweeper, as those of Hydra's basic sweeper."""

    _target_: str = "hydra_plugins.stacked.launcher.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


STORE = ConfigStore.instance()
STORE.store(group="hydra/launcher", name="stacked", node=StackedLauncherConf)
STORE.store(group="hydra/sweeper", name="grid", node=GridSweeperConf)

"""What Hydra's plugin discovery needs to find the stacked launcher, and no more.

Hydra imports this file at every start, so the launcher itself is imported where it is used.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from data.errors import InputError


class StackedLauncher(Launcher):
    """Hands over to `classifier.sweep.launcher.StackedLauncher`."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, config: DictConfig, **_: Any) -> None:
        """Keep what Hydra hands over."""
        self.context, self.config = hydra_context, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Hand over the jobs."""
        from classifier.runs.config import Config
        from classifier.shell.hints import explain
        from classifier.sweep.launcher import StackedLauncher as Stacked

        try:
            launcher = Stacked(**self.options, explain=lambda error: explain(error, Config))
        except InputError as error:
            raise InputError(f"hydra.launcher.{error}") from error
        return launcher.launch(self.context, self.config, job_overrides, initial_job_idx)


class GridSweeper(BasicSweeper):
    """Hydra's basic sweeper, but that a kill leaves the sweep's config whole or not at all.

    And without its composition of every job: the launcher does that, and records what is wrong
    with a job in the job's folder.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Keep the sweep's config for `resume`, and hand every combination to the launcher."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from omegaconf import OmegaConf

        from classifier.runs.folder import SWEEP
        from data.files.store import write_text

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        write_text(Path(str(self.config.hydra.sweep.dir)) / SWEEP, OmegaConf.to_yaml(self.config))
        returned: list[Sequence[JobReturn]] = []
        for batch in self.split_arguments(overrides, self.max_batch_size):
            first = sum(map(len, returned))
            returned.append(self.launcher.launch(batch, initial_job_idx=first))
            for job in returned[-1]:
                _ = job.return_value  # raises what ended the job, where a launcher keeps it there
        return returned


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

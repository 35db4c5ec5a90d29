"""How far a sweep is: its jobs, and the epochs of the stack that is trained here."""

import logging

from classifier.runs.progress import Progress
from classifier.solver import Training

EVERY = 10.0  # seconds between two lines of a sweep, at least


class SweepProgress(Progress):
    """Shows how many jobs of a sweep have ended, whatever became of them.

    Parameters
    ----------
    n_jobs : jobs to be trained.
    log : takes a line, where there is no terminal.
    shown : whether anything is shown.
    """

    def __init__(self, n_jobs: int, log: logging.Logger, *, shown: bool) -> None:
        super().__init__(log.info, EVERY, shown=shown)
        self.n_jobs, self.n_ended = n_jobs, 0

    def ended(self, n_jobs: int) -> None:
        """Show that so many more jobs have ended."""
        # A stack that is tried twice, for its worker was killed, has its jobs once.
        self.n_ended = min(self.n_ended + n_jobs, self.n_jobs)
        self.show(self.n_ended / max(self.n_jobs, 1), self._jobs())

    def watch(self, training: Training, n_jobs: int) -> None:
        """Show the epochs of a stack of so many jobs."""
        done = n_jobs * training.epoch / training.epochs
        epochs = f", epoch {training.epoch:{len(str(training.epochs))}}/{training.epochs}"
        self.show((self.n_ended + done) / self.n_jobs, self._jobs() + epochs)

    def _jobs(self) -> str:
        return f"{self.n_ended:{len(str(self.n_jobs))}}/{self.n_jobs} jobs"

"""What of the program's words reaches the terminal, and by which stream."""

import logging

from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class BelowError(logging.Filter):
    """Lets through what goes to stdout; errors go to stderr."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is less than an error."""
        return record.levelno < logging.ERROR


def hush() -> None:
    """With quiet=true: warnings and errors alone, on stderr; stdout is for the folder of a run."""
    for handler in logging.getLogger().handlers:
        quietest = logging.CRITICAL + 1 if handler.name == "console" else logging.WARNING
        handler.setLevel(quietest)


def hush_sweep(config: DictConfig) -> None:
    """With quiet=true: warnings and errors alone of whatever launches the jobs of a sweep."""
    logging.getLogger().setLevel(logging.WARNING)  # launchers set it anew, as their config says
    with read_write(config.hydra), open_dict(config.hydra):
        OmegaConf.update(config.hydra, "hydra_logging.root.level", "WARNING")

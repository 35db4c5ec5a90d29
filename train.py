"""Train a linear softmax classifier: python train.py key=value ..."""

import os
import signal

if __name__ == "__main__":  # Ctrl-C ends the imports, which take a second, without a traceback
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import hydra
from omegaconf import DictConfig

from classifier.runs.config import Config, register_schemas
from classifier.shell.command import run_command
from classifier.shell.hydra_compat import ENTRY
from data.errors import console


@hydra.main(config_path="configs", config_name="train", **ENTRY)
def main(composed: DictConfig) -> None:
    """Run one job of the composed config."""
    from classifier.shell.run_one import run_one

    run_one(composed)


if __name__ == "__main__":
    register_schemas()
    with console():
        run_command(main, Config)

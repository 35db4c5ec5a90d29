"""Apply a trained run to new examples: python predict.py run=latest input=PATH.npz."""

import os
import signal

if __name__ == "__main__":  # Ctrl-C ends the imports, which take a second, without a traceback
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import hydra
from omegaconf import DictConfig

from classifier.runs.config import PredictConfig, register_schemas
from classifier.shell.command import run_command
from classifier.shell.hydra_compat import ENTRY
from data.errors import console


@hydra.main(config_path="configs", config_name="predict", **ENTRY)
def main(composed: DictConfig) -> None:
    """Predict what the composed config asks for."""
    from classifier.runs.prediction import predict_composed

    predict_composed(composed)


if __name__ == "__main__":
    register_schemas()
    with console():
        run_command(main, PredictConfig)

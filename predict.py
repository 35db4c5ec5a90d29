"""Apply a trained run to new examples: python predict.py run=latest input=FILE."""

import os
import signal

if __name__ == "__main__":  # Ctrl-C ends the imports, which take a second, without a traceback
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import hydra
from omegaconf import DictConfig

from classifier.runs.config import PredictConfig, register_schemas, typed_values
from classifier.shell.command import run_command
from classifier.shell.hydra_compat import ENTRY
from data.errors import InputError, console, one_line


@hydra.main(config_path="configs", config_name="predict", **ENTRY)
def main(composed: DictConfig) -> None:
    """Predict what the composed config asks for."""
    from classifier.runs.prediction import predict

    try:
        print(predict(PredictConfig(**typed_values(composed, PredictConfig))))
    except (InputError, OSError) as error:  # as any other error Hydra would name it in two lines
        raise SystemExit(one_line(error)) from error


if __name__ == "__main__":
    register_schemas()
    with console():
        run_command(main, PredictConfig)

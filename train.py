"""Train a linear softmax classifier: python train.py key=value ..."""

import hydra
from omegaconf import DictConfig

from classifier.command import run_command
from classifier.config import Config, register_schemas


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(composed: DictConfig) -> None:
    """Run one job of the composed config."""
    from classifier.run import run_composed

    run_composed(composed)


if __name__ == "__main__":
    register_schemas()
    run_command(main, Config)

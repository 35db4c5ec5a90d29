"""What is there for one version of Hydra or Python alone: needed as long as it stands there."""

import argparse
import re

import pytest
from hydra._internal.utils import get_args_parser

from classifier.shell.hydra_compat import IS_1_3, lazy_help


def test_hydra_1_3_is_still_supported(repository):
    asked = re.search(
        r"^hydra-core>=(\d+)\.(\d+)",
        (repository / "requirements.txt").read_text(encoding="utf-8"),
        re.M,
    )
    assert (int(asked[1]), int(asked[2])) < (1, 4), "classifier/shell/hydra_compat.py can go"


def test_hydra_makes_its_parser_within():
    given = argparse.ArgumentParser.add_argument
    with lazy_help():
        parser = get_args_parser()
    assert parser.parse_args(["lr=1", "-m"]).overrides == ["lr=1"]
    assert "shell completion" in str(
        next(action.help for action in parser._actions if "-sc" in action.option_strings)
    )
    assert argparse.ArgumentParser.add_argument is given


@pytest.mark.skipif(IS_1_3, reason="Hydra 1.3 asks for no list of what a config may call")
def test_a_config_calls_nothing_but_what_the_program_has(command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/foreign.yaml").write_text(
        "# @package _global_\nhydra:\n  callbacks:\n    foreign:\n      _target_: builtins.print\n",
        encoding="utf-8",
    )
    done = command("train.py", f"--config-dir={tmp_path}", "+mine=foreign", "epochs=1")
    assert done.returncode == 1
    assert "builtins.print" in done.stderr

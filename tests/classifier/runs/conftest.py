"""A job of the real config, for what is tested without Hydra around it."""

import pytest
from hydra import compose, initialize_config_dir

from classifier.runs.config import make_config, register_schemas
from classifier.runs.job import Job, plain_config
from classifier.shell.hydra_versions import VERSION_BASE


@pytest.fixture(scope="module")
def job_of(repository):
    register_schemas()
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):

        def job(folder, *overrides):
            composed = compose("train", overrides=["report.plots=false", *overrides])
            return Job(make_config(composed), plain_config(composed, {}), folder)

        yield job

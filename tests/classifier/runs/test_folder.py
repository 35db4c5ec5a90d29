import pytest

from classifier.runs.folder import locked_runs
from data.errors import InputError


@pytest.fixture
def killed(tmp_path):
    """Return a run's folder as a kill leaves it, with what it left half-written."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    for name in ("report.json", ".report.json.77.part", ".hydra/.config.yaml.77.part"):
        (folder / name).write_text("{", encoding="utf-8")
    return folder


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_a_killed_run_left_half_written_is_cleared_away(killed):
    with locked_runs([killed]):
        assert names(killed) == [".lock", "report.json"]


def test_what_a_run_is_writing_is_left_to_it(killed, lock_elsewhere):
    lock_elsewhere(killed)
    with pytest.raises(InputError, match="is still running"), locked_runs([killed]):
        pass
    assert {".report.json.77.part", ".config.yaml.77.part"} < {*names(killed)}

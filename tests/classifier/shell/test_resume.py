import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from classifier.shell.resume import resumed_arguments


@pytest.mark.parametrize("name", ["plain", "it's mine", 'a "b" c', "x'y\\z", "a,b=c{d}", "ünï #1"])
def test_a_sweep_goes_on_in_its_folder_whatever_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"hydra": {"overrides": {"task": ["lr=0.1,0.2"], "hydra": ["hydra.mode=MULTIRUN"]}}}
    (tmp_path / name).mkdir()
    (tmp_path / name / "multirun.yaml").write_text(yaml.dump(given), encoding="utf-8")
    *others, last = resumed_arguments([f"resume={name}"])
    assert others == ["-m", "lr=0.1,0.2"]
    parsed = OverridesParser.create().parse_override(last)  # as Hydra will read it
    assert parsed.key_or_group == "hydra.sweep.dir"
    assert parsed.value() == str(tmp_path / name)

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from data.files import plain
from data.files.plain import read_plain, yaml_text

WORDS = "~ y no null 1e-3 0x1f 1_0 .inf 2026-11-26 # = ' \" \\ ${a} !x &a *a % @ ` [ { ? 1:30 << 😀"
ODD = ["", " ", "a: b", "- a", "a\nb", "\n", "\t", "\x00", "\x85", "\u2028", "\ufeff"]
ODD += [*WORDS.split(), "word " * 50, "x" * 300]
TEXTS = st.one_of(st.sampled_from(ODD), st.text(max_size=20))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(params=["CSafeDumper", "SafeDumper"], scope="module")
def dumper(request):
    chosen = getattr(yaml, request.param, None)
    if chosen is None:
        pytest.skip("PyYAML is without libyaml here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "QUICK_DUMPER", chosen)
        yield


@pytest.mark.usefixtures("dumper")
@given(VALUES)
def test_yaml_is_read_as_it_was(value):
    assert yaml.safe_load(yaml_text(value)) == value
    text = yaml_text({"a": [value]})
    assert OmegaConf.to_container(OmegaConf.create(text), resolve=False) == {"a": [value]}


@pytest.mark.usefixtures("dumper")
@given(TEXTS.filter(lambda text: text.isprintable() and text.isascii() and len(text) < 60))
def test_yaml_is_the_text_that_hydra_writes(text):
    """But for how long lines and odd characters are written."""
    text = text.replace("$", "")
    assert yaml_text([text, 1]) == OmegaConf.to_yaml(OmegaConf.create([text, 1]))


def test_nothing_is_named_by_an_anchor(tmp_path):
    twice = ["x"]
    (tmp_path / "a.yaml").write_text(yaml_text({"a": twice, "b": twice}), encoding="utf-8")
    assert read_plain(tmp_path / "a.yaml") == {"a": ["x"], "b": ["x"]}

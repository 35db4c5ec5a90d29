import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.schedules import SCHEDULES, Constant, Cosine, Exponential, Step

PER_EPOCH, TOTAL = 5, 50


def factors(schedule):
    return [schedule.factor(step, TOTAL, PER_EPOCH) for step in range(TOTAL)]


def test_constant():
    assert factors(Constant(warmup_steps=0)) == [1.0] * TOTAL


@pytest.mark.parametrize("warmup", [0, 10])
def test_cosine_falls_from_one_towards_zero_however_long_the_warm_up(warmup):
    decay = [(1 + math.cos(math.pi * t / (TOTAL - warmup))) / 2 for t in range(TOTAL - warmup)]
    assert factors(Cosine(warmup_steps=warmup))[warmup:] == pytest.approx(decay)


def test_cosine_equals_pytorchs():
    torch = pytest.importorskip("torch")
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=TOTAL)
    expected = []
    for _ in range(TOTAL):
        expected.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.step()
    assert factors(Cosine(warmup_steps=0)) == pytest.approx(expected)


def test_step_falls_after_every_so_many_epochs():
    values = factors(Step(warmup_steps=0, gamma=0.5, every=3))
    assert values == pytest.approx([0.5 ** (t // (3 * PER_EPOCH)) for t in range(TOTAL)])


def test_exponential_has_its_gamma_at_each_epochs_start():
    values = factors(Exponential(warmup_steps=0, gamma=0.8))
    assert values[::PER_EPOCH] == pytest.approx([0.8**epoch for epoch in range(10)])


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 60))
def test_warm_up_is_linear_and_the_decay_begins_after_it(name, warmup_steps):
    options = {"step": {"gamma": 0.5, "every": 3}, "exponential": {"gamma": 0.8}}.get(name, {})
    values = factors(SCHEDULES[name](warmup_steps=warmup_steps, **options))
    warm = min(warmup_steps, TOTAL)
    assert values[:warm] == pytest.approx([(t + 1) / (warmup_steps + 1) for t in range(warm)])
    if warm < TOTAL:
        assert values[warm] == 1.0
    assert all(0 < value <= 1 for value in values)

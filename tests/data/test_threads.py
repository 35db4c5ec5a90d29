import threading

import numpy as np
import pytest

from data.dataset import Dataset, Split
from data.preprocessing import Preprocessing, measure
from data.threads import ahead, in_order, row_parts


@pytest.fixture(params=[1, 2, 8])
def cores(request, monkeypatch):
    monkeypatch.setattr("data.threads.cores", lambda: request.param)
    return request.param


def test_results_come_in_order_and_few_are_ahead(cores):
    begun, taken = [], []

    def square(n):
        begun.append(n)
        return n * n

    for found in in_order(square, range(50)):
        taken.append(found)
        assert len(begun) <= len(taken) + cores
    assert taken == [n * n for n in range(50)]
    assert list(in_order(square, [])) == []


def test_the_first_error_in_order_is_raised(cores):
    def refuse(n):
        if n > 2:
            raise ValueError(n)
        return n

    found = in_order(refuse, range(40))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="^3$"):
        next(found)


def test_threads_work_at_the_same_time(monkeypatch):
    monkeypatch.setattr("data.threads.cores", lambda: 3)
    all_there = threading.Barrier(3)
    assert len([*in_order(lambda _: all_there.wait(timeout=60), range(3))]) == 3


def test_parts_cover_the_rows_once():
    assert row_parts(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert row_parts(9, 3, 5) == [slice(5, 8), slice(8, 9)]
    assert row_parts(0, 3) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_no_bit_depends_on_the_number_of_threads(dtype, monkeypatch):
    X = np.random.default_rng(0).uniform(0, 200, (1009, 6)).astype(dtype)
    monkeypatch.setattr("data.preprocessing.BLOCK_BYTES", 8 * 6 * 7)
    monkeypatch.setattr("data.preprocessing.CHUNK_BYTES", 8 * 6 * 13)
    monkeypatch.setattr("data.dataset.HASH_BLOCK", 100)
    found = []
    for n in (1, 2, 8):
        monkeypatch.setattr("data.threads.cores", lambda n=n: n)
        statistics = measure(X)
        design = Preprocessing(method="standardize").fit(statistics).design_matrix(X)
        split = Split(X, np.arange(len(X)) % 2)
        dataset = Dataset("", split, split, split, np.arange(2), None, "")
        bits = [np.asarray(a).tobytes() for a in (*vars(statistics).values(), design)]
        found.append([*bits, dataset.fingerprint, dataset.trained_on])
    assert found[0] == found[1] == found[2]


def test_ahead_makes_one_while_the_one_before_is_in_use():
    made, buffers = [], [[0], [0]]

    def make(item, buffer):
        made.append(item)
        buffer[0] = item
        return buffer

    for number, buffer in enumerate(ahead(make, range(5), buffers * 3)):
        assert buffer == [number]
        assert len(made) <= number + 2
    assert made == list(range(5))
    assert list(ahead(make, [], buffers)) == []


def test_an_error_of_the_thread_is_raised_and_the_thread_ends():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda number: 1 / number, [2, 1, 0, 3]))
    left = ahead(lambda number: number, range(9))
    assert next(left) == 0
    left.close()
    assert threading.active_count() == before

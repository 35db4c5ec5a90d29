"""How far a figure of a sample may be off, and whether two models differ by more than that.

`scipy.stats` has all of this. Importing it takes half a second, which a run and a comparison of
runs would wait for; the tests ask it.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LEVEL = 0.95  # of an interval, where no other is asked for


def accuracy_interval(accuracy: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's interval for an accuracy on n examples.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) for p = right / n. Unlike
    p -+ z sqrt(p (1 - p) / n) it holds for few examples, for none wrong and for none right.

    Parameters
    ----------
    accuracy : a report that somebody changed may say anything: below 0 is 0, above 1 is 1.
    level : the share of such intervals that hold the true value, about.

    Returns
    -------
    The lower and the upper end, in [0, 1]; both of these where n is 0, for nothing is known.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    JASA 1927.
    """
    if n == 0:
        return 0.0, 1.0
    right = round(min(max(accuracy, 0), 1) * n)
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = right / n
    centre = share + z2 / (2 * n)
    reach = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    below, above = ((centre + side * reach) / (1 + z2 / n) for side in (-1, 1))
    # At the ends the two terms are equal, and rounding may leave a rest.
    return (below if right else 0.0), (above if right < n else 1.0)


def standard_error(values: np.ndarray) -> float:
    """Return the standard error of the mean of values (n,): s / sqrt(n), s with n - 1 below.

    It is nan for fewer than two values, of which none is known.
    """
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1, dtype=np.float64)) / math.sqrt(len(values))


# Of a difference: the variance that comes of one source of chance, and with how many degrees of
# freedom it is known.
Source = tuple[float, int]


class Difference(NamedTuple):
    """How far a figure of one model or setting is from that of another, and how sure that is.

    Attributes
    ----------
    value : the figure of the second less that of the first.
    sources : of its chance. over : what they are over, in words.
    p : of an exact test, where there is one.
    """

    value: float
    sources: Sequence[Source]
    over: str
    p: float | None = None

    def interval(self, n_tests: int = 1) -> tuple[float, float]:
        """Return an interval that misses with 5 % / n_tests (Bonferroni's bound) at most.

        With variances V_k it reaches t sqrt(sum V_k) to each side, where t is the mean of Student's
        quantiles, each for its own degrees of freedom, weighted by V_k. Of one source that is
        Student's interval.

        Source: W. G. Cochran, G. M. Cox, Experimental Designs, 1957, section 4.14.
        """
        from scipy.special import stdtrit  # takes a quarter of a second to import

        variances, freedoms = map(np.array, zip(*self.sources, strict=True))
        total = variances.sum()
        t = stdtrit(freedoms, 1 - (1 - LEVEL) / (2 * n_tests)) @ variances
        reach = float(t / math.sqrt(total)) if total else 0.0
        return self.value - reach, self.value + reach

    def is_real(self, n_tests: int = 1) -> bool:
        """Return whether it is more than chance, as one of n_tests."""
        if self.p is not None:
            return self.p * n_tests < 1 - LEVEL
        low, high = self.interval(n_tests)
        return low > 0 or high < 0


def paired(
    one: np.ndarray, two: np.ndarray, over: str, others: Sequence[Source] = ()
) -> Difference:
    """Return how two models or settings differ on the same examples, drawn at random.

    Parameters
    ----------
    one, two : (N,) a figure of each example; of a setting its means over repetitions. Where both
        say whether a model is right, and there is no other source of chance, McNemar's exact test
        gives p.
    over, others : what the examples and the further sources of chance are, and these.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions
    or percentages, Psychometrika 1947.
    """
    from scipy.special import bdtr

    apart, p = two.astype(np.float64) - one, None
    if one.dtype == two.dtype == np.bool_ and not others:
        only_one, only_two = int(np.sum(apart < 0)), int(np.sum(apart > 0))
        p = min(1.0, 2 * float(bdtr(min(only_one, only_two), only_one + only_two, 0.5)))
    of_examples = standard_error(apart) ** 2, len(apart) - 1
    return Difference(float(apart.mean()), [of_examples, *others], over, p)

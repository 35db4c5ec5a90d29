"""How far a figure of a sample may be off, and whether two models differ by more than that.

`scipy.stats` has all of this. Importing it takes half a second, which a run and a comparison of
runs would wait for; the tests ask it.
"""

import math
from statistics import NormalDist

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

"""L-BFGS for one smooth convex function: the search of one model, told a value at a time.

Whoever minimises calls the function; so the functions of many models can be computed together.

Source: J. Nocedal and S. Wright, Numerical Optimization, 2nd edition, algorithms 7.4 and 7.5.
"""

import dataclasses

import numpy as np

MEMORY = 10  # pairs kept
DECREASE = 1e-4  # share of the decrease along the slope that a step must bring
ROUNDING = 1e-6  # of the value: differences below it say nothing in float32
TINY = float(np.finfo(np.float32).tiny)  # products below it are zero, or have lost their digits
SHORTENED = 12  # times a step is shortened before a direction is given up


@dataclasses.dataclass
class Search:
    """Where the search for a minimum is; arrays are of the shape of the variable.

    Attributes
    ----------
    value, gradient : at the point reached.
    direction, slope : of the line that is searched, and the derivative along it.
    step : the trial is the point plus step times the direction.
    shortened : how often the step was.
    pairs : differences of points s and of gradients y, the newest last.
    """

    value: float
    gradient: np.ndarray
    direction: np.ndarray
    slope: float
    step: float = 1.0
    shortened: int = 0
    pairs: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)

    @classmethod
    def begin(cls, value: float, gradient: np.ndarray) -> "Search":
        """Return a search that starts along the negative gradient."""
        return cls(value, gradient, -gradient, -_dot(gradient, gradient))

    def tell(self, value: float, gradient: np.ndarray) -> bool:
        """Take the value and the gradient at the trial; return whether it is the new point.

        If it is, the line is a new one; otherwise the step is shorter.
        """
        slope = _dot(gradient, self.direction)
        if not self._is_accepted(value, slope):
            self._shorten(value)
            return False
        s, y = self.step * self.direction, gradient - self.gradient
        if min(_dot(s, y), _dot(y, y)) >= TINY:
            self.pairs = [*self.pairs, (s, y)][-MEMORY:]
        self.value, self.gradient, self.step, self.shortened = value, gradient, 1.0, 0
        self.direction = self._two_loops()
        self.slope = _dot(gradient, self.direction)
        if not self.slope < 0:  # of rounding alone
            self.restart()
        return True

    @property
    def squared_gradient(self) -> float:
        """|gradient|^2 at the point reached."""
        return _dot(self.gradient, self.gradient)

    @property
    def is_stuck(self) -> bool:
        """Whether no step brings the value down any more, also along the gradient."""
        return self.shortened >= SHORTENED and not self.pairs

    def restart(self) -> None:
        """Forget the pairs and search along the negative gradient."""
        self.pairs, self.step, self.shortened = [], 1.0, 0
        self.direction = -self.gradient
        self.slope = -_dot(self.gradient, self.gradient)

    def _is_accepted(self, value: float, slope: float) -> bool:
        """Return whether a step is good enough.

        Where values differ by rounding alone their derivatives tell what they cannot: W. Hager and
        H. Zhang, A New Conjugate Gradient Method with Guaranteed Descent and an Efficient Line
        Search, SIAM J. Optim. 2005, equation (4.1).
        """
        if value <= self.value + DECREASE * self.step * self.slope:
            return True
        is_flat = value <= self.value + ROUNDING * abs(self.value)
        return is_flat and slope <= (2 * DECREASE - 1) * self.slope

    def _shorten(self, value: float) -> None:
        """Go to the minimum of the parabola through what is known, within bounds."""
        self.shortened += 1
        if self.shortened >= SHORTENED and self.pairs:
            self.restart()
            return
        factor = 0.1
        rise = value - self.value - self.step * self.slope
        if np.isfinite(rise) and rise > 0:
            factor = min(max(-self.step * self.slope / (2 * rise), 0.1), 0.5)
        self.step *= factor

    def _two_loops(self) -> np.ndarray:
        """Return minus the inverse Hessian's approximation times the gradient."""
        q = self.gradient.copy()
        factors = []
        for s, y in reversed(self.pairs):
            rho = 1 / _dot(s, y)
            alpha = rho * _dot(s, q)
            q -= alpha * y
            factors.append((alpha, rho))
        if self.pairs:
            s, y = self.pairs[-1]
            q *= _dot(s, y) / _dot(y, y)
        for (s, y), (alpha, rho) in zip(self.pairs, reversed(factors), strict=True):
            q += (alpha - rho * _dot(y, q)) * s
        return -q


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b))

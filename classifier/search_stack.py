"""The searches of several models, side by side: what L-BFGS knows of each, and its plain arrays."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from classifier.lbfgs import MEMORY, Search
from classifier.preconditioner import Preconditioner

NUMBERS = (
    "value",
    "slope",
    "step",
    "shortened",
    "lowest",
    "stale",
)  # of a search, and how many pairs it has


@dataclasses.dataclass
class SearchStack:
    """Models that are searched for at present; a trial of each is made in one pass.

    Attributes
    ----------
    models : (G,) their places among all.
    theta : (C, G, D + 1) weights and bias reached.
    directions : (C, G, D + 1), in weights, of the lines that are searched.
    searches : of each, in coordinates; none before the first pass.
    """

    models: np.ndarray
    theta: np.ndarray
    directions: np.ndarray
    searches: list[Search]

    @classmethod
    def begin(cls, models: np.ndarray, theta: np.ndarray) -> "SearchStack":
        """Return models that have not made a pass yet."""
        return cls(models, theta, np.zeros_like(theta), [])

    def steps(self) -> np.ndarray:
        """Return how far along its direction the trial of each is, (G,); 0 before the first."""
        found = [search.step for search in self.searches] or [0.0] * len(self.models)
        return np.array(found, dtype=self.theta.dtype)

    def trial(self) -> np.ndarray:
        """Return the weights (C, G, D + 1) to be tried."""
        weights: np.ndarray = self.theta + self.steps()[:, None] * self.directions
        return weights

    def tell(
        self, trial: np.ndarray, values: np.ndarray, gradients: np.ndarray, on: Preconditioner
    ) -> np.ndarray:
        """Go on from a trial; return which models have moved to it, (G,).

        Parameters
        ----------
        trial : what was tried.
        values : (G,) of the objective there.
        gradients : (C, G, D + 1) of the objective by the weights there.
        on : the coordinates.
        """
        own = np.ascontiguousarray(on.to_coordinates(gradients, self.models).transpose(1, 0, 2))
        told = zip(values.tolist(), own, strict=True)
        if self.searches:
            searching = zip(self.searches, told, strict=True)
            moved = np.array(
                [search.tell(value, gradient) for search, (value, gradient) in searching]
            )
        else:
            self.searches = [Search.begin(value, gradient) for value, gradient in told]
            moved = np.ones(len(self.models), dtype=bool)
        self.theta[:, moved] = trial[:, moved]
        return moved

    def aim(self, on: Preconditioner) -> None:
        """Bring the directions of the searches into weights."""
        if self.searches:
            found = np.stack([search.direction for search in self.searches], axis=1)
            self.directions = on.to_weights(found, self.models)

    def select(self, keep: list[int]) -> "SearchStack":
        """Return some of the models."""
        return SearchStack(
            self.models[keep],
            np.ascontiguousarray(self.theta[:, keep]),
            np.ascontiguousarray(self.directions[:, keep]),
            [self.searches[g] for g in keep],
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all but models and theta as arrays with the models on the second axis."""
        arrays = {"directions": self.directions}
        if not self.searches:
            return arrays
        numbers = [[*(getattr(s, name) for name in NUMBERS), len(s.pairs)] for s in self.searches]
        arrays["numbers"] = np.array(numbers, dtype=np.float64).T
        for name in ("gradient", "direction"):
            arrays[name] = np.stack([getattr(s, name) for s in self.searches], axis=1)
        nothing = (np.zeros(self.theta.shape[::2], dtype=self.theta.dtype),) * 2
        for k in range(max(len(s.pairs) for s in self.searches)):
            pairs = [s.pairs[k] if k < len(s.pairs) else nothing for s in self.searches]
            for name, columns in zip(("s", "y"), zip(*pairs, strict=True), strict=True):
                arrays[f"{name}{k}"] = np.stack(columns, axis=1)
        return arrays

    @classmethod
    def from_arrays(
        cls, models: np.ndarray, theta: np.ndarray, arrays: Mapping[str, np.ndarray]
    ) -> "SearchStack":
        """Return the models for which `to_arrays` returned these arrays.

        Raises
        ------
        ValueError
            When they are not such.
        """
        for name, array in arrays.items():
            fits = array.shape == theta.shape and array.dtype == theta.dtype
            if not (fits if name != "numbers" else array.dtype == np.float64):
                raise ValueError(f"{name}: an array {array.dtype} {array.shape}")
        searches = []
        for g, told in enumerate(arrays["numbers"].T.tolist() if "numbers" in arrays else []):
            value, slope, step, shortened, lowest, stale, n_pairs = told
            if not 0 <= n_pairs <= MEMORY:
                raise ValueError(f"a memory of {n_pairs} pairs")
            places = range(int(n_pairs))
            pairs = [(_own(arrays[f"s{k}"], g), _own(arrays[f"y{k}"], g)) for k in places]
            at = _own(arrays["gradient"], g), _own(arrays["direction"], g)
            counts = int(shortened), lowest, int(stale)
            searches.append(Search(value, *at, slope, step, *counts, pairs))
        if searches and len(searches) != len(models):
            raise ValueError(f"{len(searches)} searches of {len(models)} models")
        return cls(models, theta, arrays["directions"], searches)


def _own(array: np.ndarray, g: int) -> np.ndarray:
    return np.ascontiguousarray(array[:, g])

"""The combinations of a job's matrix, one by one, in the order written.

Include and exclude are GitHub Actions' (https://docs.github.com/actions/using-jobs/using-a-matrix-for-your-jobs):
exclude first; an include is added to every original combination it does not contradict, and is a combination of its
own when it fits none. Values are compared by name.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.manifest.fields import Choice, MatrixValue
from pipeline.manifest.schema import Matrix
from pipeline.text import nearest

MAX_COMBINATIONS = 1_000_000
_KEPT = 10_000  # combinations remembered between rows; more are worked out again for each row


@dataclass(frozen=True, slots=True)
class Combination:
    """One choice of every axis. `label` is its part of an id; extra keys an include added are not in it."""

    label: str
    names: dict[str, str]
    texts: dict[str, str]


class Combinations:
    """All combinations of one matrix; iterate as often as needed."""

    def __init__(self, matrix: Matrix) -> None:
        self.axes: Mapping[str, tuple[Choice, ...]] = matrix.axes
        self.at_most = math.prod(len(axis) for axis in matrix.axes.values()) if matrix.axes else 0
        self.at_most += len(matrix.include)
        self._include = matrix.include
        self._exclude = matrix.exclude
        self._texts = {name: {choice.name: choice.text for choice in axis} for name, axis in matrix.axes.items()}
        self._kept: tuple[Combination, ...] | None = None

    @property
    def keys(self) -> frozenset[str]:
        """Every name `matrix.` may be followed by; those only some includes bring are among them."""
        return frozenset(self.axes).union(*self._include)

    def __iter__(self) -> Iterator[Combination]:
        if self.at_most > _KEPT:
            return self._each()
        if self._kept is None:
            self._kept = tuple(self._each())
        return iter(self._kept)

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        """Yield (path inside the matrix, what, instead) of every mistake."""
        if self.at_most == 0:
            yield (), "the matrix is empty", "write an axis: colour: [red, navy]"
        if self.at_most > MAX_COMBINATIONS:
            what = f"the matrix has {self.at_most:,} combinations, at most {MAX_COMBINATIONS:,} are allowed"
            yield (), what, "remove values, or list the wanted rows in a CSV file"
        for index, excluded in enumerate(self._exclude):
            yield from self._exclude_problems(index, excluded)
        for index, included in enumerate(self._include):
            if not included:
                yield ("include", index), "an empty include", "write {axis: value}"
        if 0 < self.at_most <= MAX_COMBINATIONS and next(iter(self), None) is None:
            yield ("exclude",), "the matrix leaves no combination: every one is excluded", "remove an exclude"

    def _exclude_problems(
        self, index: int, excluded: dict[str, str]
    ) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        if not excluded:
            yield ("exclude", index), "an empty exclude would take everything out", "write {axis: value}"
        for key, value in excluded.items():
            known = [choice.name for choice in self.axes[key]] if key in self.axes else [*self.axes]
            wanted = value if key in self.axes else key
            if wanted not in known:
                near = nearest(wanted, known)
                what = f"{value!r} is no value of the axis {key!r}" if key in self.axes else f"there is no axis {key!r}"
                instead = f"did you mean {near!r}?" if near is not None else "known: " + ", ".join(known[:8])
                yield ("exclude", index, key), f"excludes nothing: {what}", instead

    def _each(self) -> Iterator[Combination]:
        fitted = [False] * len(self._include)
        for choices in itertools.product(*self.axes.values()) if self.axes else ():
            names = dict(zip(self.axes, (choice.name for choice in choices), strict=True))
            if any(all(names.get(key) == value for key, value in excluded.items()) for excluded in self._exclude):
                continue
            label = "-".join(names.values())
            for index, included in enumerate(self._include):
                if all(names[key] == value for key, value in included.items() if key in self.axes):
                    fitted[index] = True
                    names |= included
            yield Combination(label, names, self.texts_of(names))
        for index, included in enumerate(self._include):
            if not fitted[index]:
                ordered = {key: included[key] for key in (*self.axes, *included) if key in included}
                yield Combination("-".join(ordered.values()), ordered, self.texts_of(ordered))

    def texts_of(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return what the names of one combination stand for in prompts."""
        known = self._texts
        return {
            key: MatrixValue(known[key].get(name, name) if key in known else name, name) for key, name in names.items()
        }

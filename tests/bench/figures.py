"""One measured figure beside its goal."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`goal` None: measured for the record. Less is better unless `is_least`: then `goal` is what it should reach."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        if self.goal is None:
            return True
        return self.value >= self.goal if self.is_least else self.value <= self.goal

    def __str__(self) -> str:
        goal = "" if self.goal is None else f"   goal {'>=' if self.is_least else '<='} {self.goal:g}"
        return f"  {self.name:<72} {self.value:9.2f} {self.unit:<8}{goal}{'' if self.is_met else '   MISSED'}"

"""The figures that the planner reckons with, each with where it comes from.

Invariant: a figure is measured, a target or an assumption, and says so wherever it is used.
"""

import datetime
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Literal

import msgspec

Basis = Literal["measured", "target", "assumption"]
BASES: tuple[Basis, ...] = ("measured", "target", "assumption")
"""From the firmest to the weakest."""


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number; `source` is the command or the place that it is from."""

    value: float
    unit: str
    basis: Basis
    source: str
    date: datetime.date | None = None


class Figures:
    """All of them by name."""

    def __init__(self, by_name: Mapping[str, Figure]) -> None:
        self.by_name = dict(by_name)

    def __getitem__(self, name: str) -> float:
        return self.by_name[name].value

    def basis(self, *names: str) -> Basis:
        """The weakest of these: a sum is no firmer than its softest part."""
        return max((self.by_name[name].basis for name in names), key=BASES.index)


def package_figures() -> Figures:
    """Those that come with the package. Raises: ValueError where the file is not as it must be."""
    text = files("sluiceway.cost").joinpath("figures.toml").read_text()
    figures = Figures(msgspec.convert(tomllib.loads(text), dict[str, Figure]))
    for name, figure in figures.by_name.items():
        if figure.basis == "measured" and figure.date is None:
            raise ValueError(f"{name}: a measured figure has a date")
    return figures

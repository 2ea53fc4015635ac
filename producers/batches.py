"""Some at a time: what :func:`itertools.batched` is from Python 3.12 on."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_One = TypeVar("_One")


def batches(ones: Iterable[_One], most: int) -> Iterator[list[_One]]:
    """All of them in lists of ``most``, of which the last may be shorter; each is gathered when it is asked for."""
    left = iter(ones)
    while batch := list(islice(left, most)):
        yield batch

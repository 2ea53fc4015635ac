"""Python's cycle collector, told that folding makes no cycles.

What a fold makes by the hundred thousand (entries, rows, marks) is freed the moment nobody holds it; the collector
only looks at it again and again while a batch is under way, which costs about a tenth of the fold. A process that
folds for a living calls :func:`calm` once everything is imported and open.
"""

import gc
from typing import Final

_YOUNG: Final = 200_000
"""So many new objects between two looks at the young: several batches of 1,000 records hold fewer."""
_OLDER: Final = 20


def calm() -> None:
    """Collect once, leave what is there now alone for good, and look seldom at what comes. For a process of its own:
    it is the whole process that this changes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _OLDER)

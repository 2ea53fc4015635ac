"""A process that makes live checks and is killed with SIGKILL before or after its first confirmation is appended:
``python -m tests.integration.live_kill9 STORE before|after``."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from headrace.log.port import Record
from headrace.places import Places
from headrace.schemas.refs import Position
from headrace.settings import load_settings
from headrace.store import Store
from tests.integration.live_desk import live_checks


def main(directory: Path, when: str) -> None:
    places: Places = load_settings(directory).places
    with Store(directory, writer=True, places=places) as store:
        append = store.log.append

        def killed(records: Sequence[Record]) -> list[Position]:
            if when == "after":
                append(records)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        store.log.append = killed  # type: ignore[method-assign]
        live_checks(store).turn()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

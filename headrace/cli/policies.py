"""Policies as people and programs read and write them."""

import json
from pathlib import Path
from typing import Any, Final

from headrace.cli import output
from headrace.cli.reading import no_store, nothing_at, opened_store, rows
from headrace.errors import BadInputError, NotFoundError, UnavailableError
from headrace.processors.core.policy import Policy
from headrace.producers.opening import activate
from headrace.settings import load_settings
from headrace.store import Store

COLUMNS: Final = ("PROPOSAL", "EVENT", "ACTOR", "EFFECT", "ONLY WHERE CONCERNS MEET")
_PATIENCE_SECONDS: Final = 30.0


def in_force(store: Store) -> dict[str, Any]:
    """Policy and kinds in force at the end of the tables.

    :raises NotFoundError: nothing is folded yet.
    """
    found = rows(store.tables, "SELECT policy, kinds FROM partitions ORDER BY partition LIMIT 1")
    if not found:
        raise NotFoundError("nothing of this log is folded yet; start `headrace dev` on it once")
    return {"policy": json.loads(found[0]["policy"]), "kinds": json.loads(found[0]["kinds"])}


def put_in_force(directory: Path | None, file: Path | None) -> dict[str, Any]:
    """Append the policy in a file, or the one in force, with every installed kind; waits until it is folded.

    :raises NotFoundError: there is no store.
    :raises BadInputError: the file holds no policy.
    :raises WriterLockedError: a process runs on the store; it must be stopped meanwhile.
    """
    settings = load_settings(directory)
    place, places = settings.store, settings.places
    if nothing_at(place, places):
        raise no_store(place)
    given = _read(file) if file is not None else None
    with opened_store(place, places, writer=True, fold=False) as store:
        policy = given if given is not None else Policy.from_body(in_force(store)["policy"])
        for position in activate(store.log, store.registry, store.kinds, policy):
            if not store.applied.wait(position.partition, position.offset, _PATIENCE_SECONDS):
                raise UnavailableError("the policy is on the log, but the tables have not reached it; look again later")
        return in_force(store)


def _read(file: Path) -> Policy:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        policy = Policy.from_body(body["policy"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(
            f"{file} holds no policy ({error!r}); begin with what `headrace policy show --json` prints"
        ) from error
    return policy


def print_policy(found: dict[str, Any]) -> None:
    """Policy and kinds as a page."""
    policy = found["policy"]
    age, staleness = policy["basis_max_age_ms"], policy["source_max_staleness_ms"]
    output.text(f"policy {policy['name']}: the first rule that fits counts; where none fits, an event invalidates")
    output.text(f"kinds in force: {', '.join(found['kinds'])}")
    output.text(f"a basis expires after: {f'{age / 1000:g} s' if age is not None else 'never'}")
    output.text(
        f"proposals are held when a source is staler than: {f'{staleness / 1000:g} s' if staleness else 'never'}"
    )
    output.table(
        COLUMNS,
        (
            (rule["proposal"], rule["event"], rule["actor"], rule["effect"], "yes" if rule["concerns"] else "")
            for rule in policy["rules"]
        ),
    )

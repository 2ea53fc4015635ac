"""Grants: consent, refreshing with rotation, and what is never said of them."""

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import BadInputError, UnavailableError
from headrace.keys import Keys
from headrace.producers.connections import Connections, key_of
from headrace.producers.oauth import Consent, OAuthApp, StoredTokens
from headrace.producers.provider import Connected
from headrace.producers.provider_http import GrantError
from headrace.producers.vault_sqlite import SqliteVault
from tests.doubles.http import transport
from tests.doubles.oauth import CLIENT, LIFETIME, SECRET, AuthorizationServer

SOURCE = Connected("acme", "ann", "gmail/1", "gmail", {"address": "ann@example.com"})
KEY = key_of(SOURCE)
APP = OAuthApp(
    "gmail", "https://auth.example/authorize", "https://auth.example/token", CLIENT, SECRET, {"access_type": "offline"}
)
BACK = "http://127.0.0.1:4711"


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def connections(tmp_path: Path) -> Connections:
    return Connections(SqliteVault(tmp_path), Keys(bytes(32)))


@pytest.fixture
def server() -> AuthorizationServer:
    return AuthorizationServer()


def consent(server: AuthorizationServer, app: OAuthApp = APP) -> Consent:
    return Consent(app, "mail", BACK, transport=transport(server))


def connected(connections: Connections, server: AuthorizationServer) -> Clock:
    asked = consent(server)
    assert connections.add(SOURCE, asked.grant(server.consent(asked.url)))
    clock = Clock()
    clock.now = float((connections.grant(KEY) or {})["expires_at"]) - LIFETIME
    return clock


def tokens(connections: Connections, server: AuthorizationServer, clock: Clock) -> StoredTokens:
    return StoredTokens(connections, KEY, APP, transport=transport(server), clock=clock)


def test_a_token_serves_until_shortly_before_it_ends(connections: Connections, server: AuthorizationServer) -> None:
    clock = connected(connections, server)
    first = tokens(connections, server, clock).access()
    clock.now += LIFETIME - 61
    assert tokens(connections, server, clock).access() == first
    assert server.refreshes == 0
    clock.now += 2
    second = tokens(connections, server, clock).access()
    assert second != first
    assert second in server.access
    assert server.refreshes == 1


def test_one_that_is_turned_down_is_refreshed_once(connections: Connections, server: AuthorizationServer) -> None:
    clock = connected(connections, server)
    several = [tokens(connections, server, clock) for _ in range(4)]
    first = several[0].access()
    found: list[str] = []

    def ask(one: StoredTokens) -> None:
        found.append(one.access(refused=first))

    threads = [threading.Thread(target=ask, args=(one,)) for one in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert set(found) == {tokens(connections, server, clock).access()}
    assert first not in found
    assert server.refreshes == 1


def test_rotation_goes_on_for_ever(connections: Connections, server: AuthorizationServer) -> None:
    clock, seen = connected(connections, server), set[str]()
    for _ in range(5):
        clock.now += LIFETIME
        tokens(connections, server, clock).access()
        seen.add((connections.grant(KEY) or {})["refresh_token"])
    assert len(seen) == 5


def test_a_server_that_gives_one_refresh_token_for_good(connections: Connections) -> None:
    server = AuthorizationServer(rotates=False)
    clock = connected(connections, server)
    kept = (connections.grant(KEY) or {})["refresh_token"]
    for _ in range(3):
        clock.now += LIFETIME
        assert tokens(connections, server, clock).access() in server.access
    assert (connections.grant(KEY) or {})["refresh_token"] == kept


def test_a_grant_that_is_taken_back_is_for_a_person(connections: Connections, server: AuthorizationServer) -> None:
    clock = connected(connections, server)
    server.revoke()
    clock.now += LIFETIME
    with pytest.raises(GrantError, match="connect the source again"):
        tokens(connections, server, clock).access()


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_is_ill_is_asked_again(
    connections: Connections, server: AuthorizationServer, status: int
) -> None:
    clock = connected(connections, server)
    clock.now += LIFETIME
    server.ailing = [status]
    with pytest.raises(UnavailableError):
        tokens(connections, server, clock).access()
    assert tokens(connections, server, clock).access() in server.access


def test_an_answer_that_is_lost_ends_the_family_and_is_told(
    connections: Connections, server: AuthorizationServer
) -> None:
    """With rotation nobody can do better: the server believes that the new one was stolen."""
    clock = connected(connections, server)
    clock.now += LIFETIME
    server.lose = 1
    with pytest.raises(UnavailableError):
        tokens(connections, server, clock).access()
    with pytest.raises(GrantError, match="connect the source again"):
        tokens(connections, server, clock).access()


def test_another_apps_secret_is_told_as_such(connections: Connections, server: AuthorizationServer) -> None:
    clock = connected(connections, server)
    clock.now += LIFETIME
    wrong = StoredTokens(
        connections, KEY, APP._replace(client_secret="other"), transport=transport(server), clock=clock
    )
    with pytest.raises(BadInputError, match="client id and secret") as refusal:
        wrong.access()
    assert not isinstance(refusal.value, GrantError)


def test_a_password_is_given_until_it_is_turned_down(connections: Connections, server: AuthorizationServer) -> None:
    connections.add(SOURCE, {"password": "sesame"})
    found = StoredTokens(connections, KEY, None)
    assert found.access() == "sesame"
    with pytest.raises(GrantError, match="connect the source again"):
        found.access(refused="sesame")


def test_without_a_grant_it_says_so(connections: Connections, server: AuthorizationServer) -> None:
    with pytest.raises(GrantError, match="there is no grant"):
        tokens(connections, server, Clock()).access()


# -- consent ----------------------------------------------------------------------------------------------------------


def test_an_answer_to_another_question_is_refused(server: AuthorizationServer) -> None:
    mine, other = consent(server), consent(server)
    with pytest.raises(BadInputError):
        mine.grant(server.consent(other.url))


def test_a_proof_key_is_needed(server: AuthorizationServer) -> None:
    asked = consent(server)
    answer = server.consent(asked.url)
    thief = consent(server)
    state, stolen = (one.url.partition("state=")[2].partition("&")[0] for one in (asked, thief))
    with pytest.raises(BadInputError, match="does not take the answer") as refusal:
        thief.grant(answer.replace(state, stolen))
    assert not isinstance(refusal.value, GrantError), "there is no source yet whose grant it would be"


def test_a_person_who_says_no(server: AuthorizationServer) -> None:
    asked = consent(server)
    state = asked.url.partition("state=")[2].partition("&")[0]
    with pytest.raises(BadInputError, match="access_denied"):
        asked.grant(f"{BACK}/?error=access_denied&state={state}")
    with pytest.raises(BadInputError, match="no answer to what"):
        asked.grant(f"{BACK}/?error=access_denied&state=another")


@pytest.mark.parametrize(
    "answer",
    ["", "hello", "http://[", "?code=c", "http://x/?code=&state=STATE", "http://x/?state=STATE", "\udc80?code=c"],
)
def test_what_is_no_answer(server: AuthorizationServer, answer: str) -> None:
    asked = consent(server)
    state = asked.url.partition("state=")[2].partition("&")[0]
    with pytest.raises(BadInputError, match="no answer to what"):
        asked.grant(answer.replace("STATE", state))
    assert server.asked == []


def test_what_stands_in_the_address_already_stays(server: AuthorizationServer) -> None:
    app = APP._replace(authorize_url="https://auth.example/authorize?access_type=offline&tenant=t", extra={})
    asked = consent(server, app)
    assert "tenant=t" in asked.url
    assert is_whole(asked.grant(server.consent(asked.url)))


def is_whole(grant: Any) -> bool:
    return set(grant) == {"access_token", "refresh_token", "expires_at", "scope"}


def test_a_public_client_shows_no_secret() -> None:
    server = AuthorizationServer(secret=None)
    asked = consent(server, APP._replace(client_secret=""))
    assert is_whole(asked.grant(server.consent(asked.url)))
    assert "client_secret" not in server.asked[0]


# -- what is never said -----------------------------------------------------------------------------------------------


def test_no_secret_is_in_a_log_a_message_or_a_file(
    connections: Connections, server: AuthorizationServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    clock = connected(connections, server)
    said: list[Any] = [SOURCE, APP, connections]
    for refused in (None, tokens(connections, server, clock).access()):
        tokens(connections, server, clock).access(refused=refused)
    grant = dict(connections.grant(KEY) or {})
    server.revoke()
    with pytest.raises(GrantError) as refusal:
        tokens(connections, server, clock).access(refused=grant["access_token"])
    said += [str(refusal.value), repr(refusal.value)]
    secrets = [grant["access_token"], grant["refresh_token"], SECRET, "ann@example.com"]
    told = caplog.text + "".join(map(repr, said))
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in secrets:
        assert secret not in told
        assert secret.encode() not in kept

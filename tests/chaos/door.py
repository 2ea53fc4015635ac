"""One client's way to the API: sends requests, and sorts what comes back into told, refused and unknown."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx

from headrace.producers.signatures import sign
from headrace.schemas.refs import Token
from tests.chaos.history import ANSWER, CLAIM, EVENT, LOOKUP, PROBE, PROPOSE, READ, SCOPE, Call, Recorder
from tests.chaos.tenants import Login

NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
WAIT: Final = "wait=2"
_SECONDS: Final = 8.0
_REFUSED: Final = frozenset({400, 401, 403, 404, 405, 413, 415, 421, 422})
_SURELY_NOTHING: Final = frozenset({"busy", "log_unavailable"})
Json = Mapping[str, Any]


class Door:
    """``where`` gives the URL of an API process; it is asked before every request, as processes come and go."""

    def __init__(self, login: Login, recorder: Recorder, where: Callable[[], str]) -> None:
        self.login: Final = login
        self.known: Final[dict[str, str]] = {}
        """The furthest token this client was given, by account: brought along whenever it reads."""
        self.shut = False
        """Whether nobody was there the last time."""
        self._recorder: Final = recorder
        self._where: Final = where
        self._http: Final = httpx.Client(
            timeout=httpx.Timeout(_SECONDS, connect=2.0), headers={"Authorization": f"Bearer {login.key}"}
        )

    def close(self) -> None:
        """Let go of connections."""
        self._http.close()

    # -- writes ---------------------------------------------------------------------------------------------------

    def tell(self, events: Sequence[tuple[str, Json]]) -> bool:
        """Deliver (account, CloudEvent)s by webhook, as one delivery. Whether the log has them all."""
        calls = [self._invoke(EVENT, account, event["id"], type=event["type"]) for account, event in events]
        whole = [{**event, "specversion": "1.0", "source": "mailroom", "account": account} for account, event in events]
        body = json.dumps(whole if len(whole) > 1 else whole[0]).encode()
        media = "application/cloudevents-batch+json" if len(whole) > 1 else "application/cloudevents+json"
        signed = sign(self.login.secret, f"msg-{whole[0]['id']}", int(time.time()), body)
        answer = self._send(
            calls,
            "POST",
            f"/v1/webhooks/standard/{self.login.webhook}",
            content=body,
            headers={**signed, "content-type": media},
        )
        if answer is None:
            return False
        if answer.status_code == 202:
            for call, place in zip(calls, answer.json()["positions"], strict=True):
                call.ok(partition=place["partition"], offset=place["offset"])
            return True
        found = _json(answer)
        for call in calls:
            if answer.status_code < 500 or found.get("reason") in _SURELY_NOTHING:
                call.failed(_why(answer))
            else:
                call.unknown(_why(answer))
        return False

    def propose(self, account: str, proposal: str, body: Json) -> Json | None:
        """Propose; what was told, ``None`` where it is not known whether anything happened."""
        said = {"type": body["type"], "entity": body["entity"], "basis": body["basis"]}
        call = self._invoke(PROPOSE, account, proposal, **said)
        headers = {"Idempotency-Key": proposal, "Prefer": WAIT}
        path = f"/v1/accounts/{account}/proposals"
        return self._judged(call, self._send([call], "POST", path, json=body, headers=headers), account, own=True)

    def answer(self, account: str, proposal: str, key: str, verb: str, body: Json) -> Json | None:
        """Approve, dismiss or withdraw a proposal."""
        call = self._invoke(ANSWER, account, key, proposal=proposal, verb=verb)
        headers = {"Idempotency-Key": key, "Prefer": WAIT}
        path = f"/v1/accounts/{account}/proposals/{proposal}/{verb}"
        return self._judged(call, self._send([call], "POST", path, json=body, headers=headers), account, own=False)

    def claim(self, account: str, key: str, entity: Json, until: int) -> None:
        """Claim an entity."""
        call = self._invoke(CLAIM, account, key, entity=entity, until=until)
        body = {"entity": entity, "until": until}
        headers = {"Idempotency-Key": key, "Prefer": WAIT}
        found = self._send([call], "POST", f"/v1/accounts/{account}/claims", json=body, headers=headers)
        if found is not None and (found.status_code == 201 or _is(found, "claimed")):
            call.ok(status=found.status_code, position=self._learn(account, _json(found).get("position")))
        elif found is not None and found.status_code in _REFUSED - {422}:
            call.failed(_why(found))
        elif found is not None:
            call.unknown(_why(found))  # a claim that has run out is refused when it is on the log already

    def _judged(self, call: Call, answer: httpx.Response | None, account: str, *, own: bool) -> Json | None:
        if answer is None:
            return None
        body = _json(answer)
        told: dict[str, Any]
        if "verdict" in body:
            told = verdict_told(body, current=not own or body["duplicate"])
            if own and not body["duplicate"]:
                told |= {"offset": body["submitted_at"], "partition": Token.parse(body["position"]).partition}
        elif answer.status_code == 202:
            told = {"verdict": None, "position": body["position"], "offset": body["offset"]}
            told["partition"] = Token.parse(body["position"]).partition
        elif _is(answer, "not-waiting"):
            told = {"verdict": None, "position": body["position"]}
        else:
            (call.failed if answer.status_code in _REFUSED else call.unknown)(_why(answer))
            return None
        self._learn(account, told["position"])
        call.ok(**told)
        return told

    # -- reads ----------------------------------------------------------------------------------------------------

    def read(self, account: str, kind: str, entity: str, *, wait: str = WAIT) -> Json | None:
        """An entity at the furthest position this client knows, or beyond; ``shown`` is ``None`` where it is not."""
        after = self.known.get(account)
        call = self._invoke(READ, account, f"{kind}/{entity}", kind=kind, entity=entity, after=after)
        path = f"/v1/accounts/{account}/entities/{kind}/{entity}"
        answer = self._send([call], "GET", path, params=_after(after), headers={"Prefer": wait})
        if answer is None:
            return None
        body = _json(answer)
        told: dict[str, Any]
        if answer.status_code == 200:
            told = {"position": body["position"], "log_time": body["log_time"], "shown": shown(body)}
        elif _is(answer, "no-such-entity"):
            told = {"position": body["position"], "log_time": body["log_time"], "shown": None}
        else:
            call.failed(_why(answer))
            return None
        call.ok(**told)
        self._learn(account, told["position"])
        return {**told, "basis": body.get("basis")}

    def scope(self, account: str, container: str, id_: str, *, clear: bool = False) -> Json | None:
        """What meets a scope."""
        after = self.known.get(account)
        call = self._invoke(SCOPE, account, f"{container}/{id_}", container=container, after=after)
        params = {**_after(after), "limit": "1000", **({"clear": "true"} if clear else {})}
        answer = self._send([call], "GET", f"/v1/accounts/{account}/scopes/{container}/{id_}", params=params)
        if answer is None:
            return None
        if answer.status_code != 200:
            call.failed(_why(answer))
            return None
        body = answer.json()
        found = [[one["kind"], one["id"], one["head"]["offset"]] for one in body["entities"]]
        self._learn(account, body["position"])
        told = {"position": body["position"], "scope": body["id"], "found": found}
        call.ok(**told)
        return told

    def lookup(self, account: str, proposal: str) -> Json | None:
        """A proposal's current verdict and all before."""
        after = self.known.get(account)
        call = self._invoke(LOOKUP, account, proposal, after=after)
        answer = self._send([call], "GET", f"/v1/accounts/{account}/proposals/{proposal}", params=_after(after))
        if answer is None:
            return None
        body = _json(answer)
        told: dict[str, Any]
        if answer.status_code == 200:
            told = verdict_told(body, current=True)
            told["history"] = [[one["offset"], one["verdict"]] for one in body["history"]]
        elif _is(answer, "no-such-proposal"):
            told = {"verdict": None, "position": body["position"], "history": []}
        else:
            call.failed(_why(answer))
            return None
        call.ok(**told)
        self._learn(account, told["position"])
        return told

    def probe(self, account: str, path: str) -> None:
        """Ask for what is another tenant's."""
        call = self._invoke(PROBE, account, path)
        answer = self._send([call], "GET", f"/v1/accounts/{account}/{path}")
        if answer is not None and answer.status_code >= 500:
            call.failed(_why(answer))
        elif answer is not None:
            call.ok(status=answer.status_code, why=_why(answer))

    # -- both -----------------------------------------------------------------------------------------------------

    def _invoke(self, doing: str, account: str, id_: str, /, **said: Any) -> Call:
        return self._recorder.invoke(self.login.name, doing, (self.login.tenant, account), id_, **said)

    def _send(self, calls: Sequence[Call], method: str, path: str, **more: Any) -> httpx.Response | None:
        try:
            answer = self._http.request(method, self._where() + path, **more)
        except NEVER_SENT as error:
            self.shut = True
            for call in calls:
                call.failed(repr(error))
        except httpx.HTTPError as error:
            for call in calls:
                call.unknown(repr(error))
        else:
            self.shut = False
            return answer
        return None

    def _learn(self, account: str, text: str | None) -> str | None:
        if text is not None:
            known = self.known.get(account)
            if known is None or Token.parse(text).offset > Token.parse(known).offset:
                self.known[account] = text
        return text


def verdict_told(body: Json, *, current: bool) -> dict[str, Any]:
    """A verdict in an answer, as the checker wants it: ``at`` is the offset of the record that brought it about."""
    told = {name: body[name] for name in ("verdict", "finding", "time", "token", "position")}
    return {**told, "at": body["offset"], "current": current, "waits": body["waits"], "outcome": body["outcome"]}


def shown(body: Json) -> dict[str, Any]:
    """An entity in an answer, as the checker wants it."""
    claim = body["claim"]
    return {
        "basis": Token.parse(body["basis"]).offset,
        "time": body["head"]["time"],
        "state": body["state"],
        "intents": [
            [one["proposal"], one["type"], one["accepted_at"], one["attempt"], one["unknown"]]
            for one in body["intents"]
        ],
        "claim": [claim["claim"], claim["holder"], claim["until"]] if claim is not None else None,
    }


def _after(token: str | None) -> dict[str, str]:
    return {"after": token} if token is not None else {}


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is(answer: httpx.Response, kind: str) -> bool:
    return bool(_json(answer).get("type", "").endswith(f":{kind}"))


def _why(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.text[:300]}"

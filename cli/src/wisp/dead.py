"""`wisp dead`: dead letters, which the ingest keeps the door of.

The door is reached through the API server's proxy, with a token of the namespace's ServiceAccount `default` made for the door alone: the
proxy keeps the kubeconfig's own credentials to itself.
"""

import json
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from wisp_api import names

from wisp import output
from wisp.cluster import Cluster
from wisp.door import explain
from wisp.errors import CommandError

_SERVICE: Final = "wisp-ingest:8080"
_ACCOUNT: Final = "default"
_SECONDS: Final = 60
_AT_ONCE: Final = 100
_FAILED: Final = 400
COLUMNS: Final = ["ID", "AGE", "SUBSCRIPTION", "REASON", "EVENT", "ATTEMPTS", "MESSAGE"]
_MESSAGE: Final = 80

Letter = dict[str, Any]


class Letters:
    """The dead letters of a namespace."""

    def __init__(self, cluster: Cluster, system: str) -> None:
        """`system` is the namespace that Wisp itself is in."""
        self._cluster = cluster
        self._system = system
        self._token = ""
        self._since = 0.0

    def all(self, subscription: str | None) -> Iterator[Letter]:
        """Those in short, the oldest first.

        Raises:
            CommandError: refused.
        """
        after, more = 0, True
        while more:
            asked: dict[str, str | int] = {"after": after} | ({"subscription": subscription} if subscription else {})
            page = self._ask("GET", f"?{urlencode(asked)}")
            yield from page["letters"]
            more = page["more"]
            after = page["letters"][-1]["id"] if page["letters"] else 0

    def one(self, letter: int) -> Letter:
        """All of one.

        Raises:
            CommandError: refused, or there is none.
        """
        return self._ask("GET", f"/{letter}")

    def redrive(self, subscription: str | None, ids: Sequence[int] | None, rate: int) -> dict[str, Any]:
        """Send events again, so many a second; how many, and which letters stay and why.

        Raises:
            CommandError: refused.
        """
        return self._act("/redrive", subscription, ids, min(rate, _AT_ONCE), 1 / rate)

    def purge(self, subscription: str | None, ids: Sequence[int] | None) -> dict[str, Any]:
        """Drop letters; how many.

        Raises:
            CommandError: refused.
        """
        return self._act("/purge", subscription, ids, _AT_ONCE, 0)

    def _act(
        self, path: str, subscription: str | None, ids: Sequence[int] | None, limit: int, pause: float
    ) -> dict[str, Any]:
        done: dict[str, Any] = {"done": 0, "kept": []}
        order: dict[str, Any] = {"subscription": subscription, "limit": limit}
        order |= {"ids": list(ids)} if ids else {}
        more = True
        while more:
            began = time.monotonic()
            part = self._ask("POST", path, order)
            done = {"done": done["done"] + part["done"], "kept": done["kept"] + part["kept"]}
            more, order["after"], order["until"] = part["more"], part["after"], part["until"]
            if "ids" in order:
                order["ids"] = [one for one in order["ids"] if one > part["after"]]
            if more:
                time.sleep(max(0.0, began + part["done"] * pause - time.monotonic()))
        return done

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        if time.monotonic() - self._since > 5 * 60 or not self._token:
            self._token, self._since = self._cluster.token(_ACCOUNT, names.AUDIENCE), time.monotonic()
        data = json.dumps(body).encode() if body is not None else None
        headers = {"wisp-authorization": f"Bearer {self._token}", "content-type": "application/json"}
        request = urllib.request.Request("http://door", data, headers, method=method)
        target = f"/v1/namespaces/{self._cluster.namespace}/deadletters{path}"
        with self._cluster.proxy(self._system, _SERVICE, request, target, _SECONDS) as answer:
            said = answer.read()
            if answer.status >= _FAILED:
                raise CommandError(explain(answer.status, said, "wisp-ingest", self._system))
        found: dict[str, Any] = json.loads(said)
        return found


def as_rows(letters: Iterator[Letter]) -> list[list[str]]:
    """The list for people."""
    return [
        [
            str(one["id"]),
            output.age(one["time"]),
            one.get("subscription") or one.get("source") or "-",
            one["reason"],
            one.get("eventId", "-"),
            str(one.get("attempts", 0)),
            one["message"][:_MESSAGE],
        ]
        for one in letters
    ]


def story(letter: Letter) -> list[str]:
    """What happened to an event, in lines."""
    where = letter.get("subscription") or letter.get("source")
    lines = [f"letter {letter['id']} of {where}, {letter['time']}", f"{letter['reason']}: {letter['message']}"]
    if "function" in letter:
        revision = f", revision {letter['revision']}" if "revision" in letter else ""
        lines.append(f"for function {letter['function']}{revision}")
    if letter.get("attempts"):
        lines.append(f"{letter['attempts']} attempts since {letter.get('firstAttempt')}")
    if "lastStatus" in letter:
        lines.append(f"the function's last answer: HTTP {letter['lastStatus']}: {letter.get('lastResponse', '')}")
    return lines

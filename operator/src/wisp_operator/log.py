"""The event log as the control plane uses it: streams and key-value buckets, made, compared and taken away.

Reads go straight to the stored values (direct get, in batches): no consumer, no watch and no cache that could be stale; a
reconciliation works on what the log holds now. Deleted keys leave a marker, which watchers need, and which the server removes
after an hour by itself. Everything raises `nats.errors.Error` or `OSError` while the log is away; the caller tries again.

Needs nats-server 2.12: batched direct gets and time to live of single messages.
"""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import nats.errors
from nats.aio.client import Client, RawCredentials
from nats.js.errors import APIError
from wisp_api import jetstream, names

from wisp_operator.apply import covers
from wisp_operator.config import OperatorConfig
from wisp_operator.nats_auth import User
from wisp_operator.sources import stream_bytes
from wisp_operator.streams import REQUEST_SECONDS, Config, Streams

_log = logging.getLogger(__name__)
_BATCH: Final = 512
_SECOND: Final = 1_000_000_000
_MARKER: Final = {"KV-Operation": "DEL", "Nats-TTL": "1h"}
_MEMBER_SECONDS: Final = 8
_DEAD_LETTER_SECONDS: Final = 14 * 24 * 3600
_DUPLICATE_SECONDS: Final = 120
_LEAST_LETTERS: Final = 1024 * 1024
_NO_ROOM: Final = {10002, 10005, 10023, 10047}
"""The account's, the cluster's, the server's limit, or that of its storage: the server's own numbers."""
_END_OF_BATCH: Final = "204"
_SUBJECT: Final = "Nats-Subject"
"""The server's own header of each stored message that it gives out, and of nothing else."""


class Entry(NamedTuple):
    """A key's last value."""

    revision: int
    value: bytes


class Change(NamedTuple):
    """A key that was written, or deleted (`value` None)."""

    key: str
    revision: int
    value: bytes | None


class EventLog:
    """A connection to the event log with the operator's rights."""

    def __init__(self, client: Client, config: OperatorConfig) -> None:
        """`connect` makes one."""
        self._client = client
        self._server = Streams(client)
        self._config = config
        self._first_letter = 1

    @property
    def connected(self) -> bool:
        """Whether the server answers now, as far as the client knows."""
        return self._client.is_connected

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def ensure_base(self) -> None:
        """Make the buckets and the platform's own streams, or bring their settings up to date."""
        for bucket in (names.KV_ROUTES, names.KV_SOURCES, names.KV_SCHEDULES, names.KV_STATUS, names.KV_CURSORS):
            await self._server.ensure(self._bucket(bucket))
        members = {"max_age": _MEMBER_SECONDS * _SECOND, "duplicate_window": _MEMBER_SECONDS * _SECOND}
        await self._server.ensure(self._bucket(names.KV_MEMBERS) | members)
        await self._retire_shared_letters()
        await self.ensure_letters(self._config.namespace)  # of what belongs to no other
        await self._ensure_lines()

    async def ensure_letters(self, namespace: str) -> None:
        """Make the stream of a namespace's dead letters, or bring it up to date; as large as there is room for, where there is too little.

        One letter takes half of it at most: the server would take one that is larger than all, and drop it with those before it.

        Raises:
            APIError: the server has no room for the smallest.
        """
        name, quota = names.dead_letter_stream(namespace), self._config.dead_letter_max_bytes
        wanted = {
            **self._stream(name, [names.dead_letter_subjects(namespace)]),
            "max_age": _DEAD_LETTER_SECONDS * _SECOND,
            "discard": "old",
            "duplicate_window": _DUPLICATE_SECONDS * _SECOND,
        }
        live = await self._server.info(name, names.LETTERS_API)
        if live and covers(live["config"], wanted | _of_size(quota)):
            return
        held = live["config"]["max_bytes"] if live else _LEAST_LETTERS
        smaller = [size for size in (quota // 4, quota // 16) if size > held] + [min(held, quota)]
        for size in (quota, *smaller):
            try:
                await self._server.ensure(wanted | _of_size(size), {"first_seq": self._first_letter}, names.LETTERS_API)
            except APIError as error:
                if error.err_code not in _NO_ROOM or size == smaller[-1]:
                    raise
            else:
                if size < quota and live is None:
                    _log.warning(
                        "the event log has no room for the dead letters of namespace %s: it keeps %d bytes of them instead of %d until there is",
                        namespace, size, quota,
                    )  # fmt: skip
                return

    async def lettered(self) -> set[str]:
        """The namespaces that have a stream of dead letters, the platform's own left out."""
        found: list[str] = []
        while True:
            page = await self._server.call("STREAM.NAMES", {"offset": len(found)}, names.LETTERS_API)
            found += page.get("streams") or []
            if len(found) >= page["total"] or not page.get("streams"):
                return {name.partition("_")[2] for name in found} - {self._config.namespace}

    async def drop_letters(self, namespace: str, *, held: bool) -> None:
        """Delete the stream of a namespace's dead letters; one that holds some only where `held` says so."""
        if namespace == self._config.namespace:
            return
        name = names.dead_letter_stream(namespace)
        info = await self._server.info(name, names.LETTERS_API)
        if info and (held or not info["state"]["messages"]):
            await self._server.call(f"STREAM.DELETE.{name}", None, names.LETTERS_API)

    async def _retire_shared_letters(self) -> None:
        """Let the stream that all namespaces shared take nothing more and reserve no more than it holds; empty, it goes.

        Letters of streams made from now on have greater numbers than any of it, so that a namespace's are in one order.
        """
        name = names.SHARED_LETTERS
        if (info := await self._server.info(name)) and info["config"]["subjects"] != [f"retired.{name}"]:
            await self._server.call(f"STREAM.UPDATE.{name}", info["config"] | {"subjects": [f"retired.{name}"]})
            info = await self._server.info(name)
        if info is None:
            return
        self._first_letter = info["state"]["last_seq"] + 1
        if not info["state"]["messages"]:
            await self.delete_stream(name)
        elif info["config"]["max_bytes"] > (size := info["state"]["bytes"]):
            await self._server.call(f"STREAM.UPDATE.{name}", info["config"] | {"max_bytes": size})

    async def _ensure_lines(self) -> None:
        """Make the stream of log lines, where lines are kept; one that is there stays, with what it holds, for as long as it said."""
        if not self._config.log_lines_max_bytes:
            return
        await self._server.ensure(
            {
                **self._stream(names.LOG_STREAM, [names.LOG_SUBJECTS]),
                "max_age": self._config.log_lines_retention_seconds * _SECOND,
                "max_bytes": self._config.log_lines_max_bytes,
                "discard": "old",
                "duplicate_window": _DUPLICATE_SECONDS * _SECOND,
            }
        )

    async def streams(self, namespace: str) -> dict[str, Config]:
        """The event streams of a namespace, by name.

        Raises:
            nats.errors.Error: a cluster's servers did not tell of all of them: what is not named may be there.
        """
        found: dict[str, Config] = {}
        seen = 0
        while True:
            query = {"subject": f"wisp.events.{namespace}.>", "offset": seen}
            page = await self._server.call("STREAM.LIST", query)
            if missing := page.get("missing"):
                raise nats.errors.Error(f"no server answers for {', '.join(sorted(missing))}")
            listed = page.get("streams") or []
            seen += len(listed)
            found |= {item["config"]["name"]: item["config"] for item in listed}
            if seen >= page["total"] or not listed:
                return {name: config for name, config in found.items() if name.startswith(f"events_{namespace}_")}

    async def ensure_streams(self, namespace: str, wanted: dict[str, str], live: dict[str, Config]) -> dict[str, str]:
        """Make a namespace's event streams, its dead letters' first; which the server refused, and why.

        `wanted` is their names and subjects, `live` what `streams` said.
        """
        try:
            if wanted:
                await self.ensure_letters(namespace)
        except APIError as error:
            return dict.fromkeys(wanted, f"there is no room for its dead letters: {error.description or error}")
        refused = {}
        for name, subjects in wanted.items():
            try:
                await self.ensure_event_stream(name, subjects, live.get(name))
            except APIError as error:
                refused[name] = error.description or str(error)
        return refused

    async def ensure_event_stream(self, name: str, subjects: str, live: Config | None) -> None:
        """Make one source's stream, or bring it up to date; `live` is what `streams` said of it."""
        wanted = {
            **self._stream(name, [subjects]),
            "max_bytes": min(self._config.stream_max_bytes, stream_bytes(name)),
            "discard": "new",
            "duplicate_window": _DUPLICATE_SECONDS * _SECOND,
        }
        if live is None:
            await self._server.call(f"STREAM.CREATE.{name}", wanted)
        elif not covers(live, wanted):
            await self._server.call(f"STREAM.UPDATE.{name}", live | wanted)

    async def delete_stream(self, name: str) -> None:
        """Delete a stream and all that it holds."""
        await self._server.call(f"STREAM.DELETE.{name}", None)

    async def entries(self, bucket: str, keys: str) -> dict[str, Entry]:
        """What a bucket holds under the keys that match (`*` and `>` as in subjects)."""
        changes = [change async for change in self.changes(bucket, keys, 0)]
        return {change.key: Entry(change.revision, change.value) for change in changes if change.value is not None}

    async def changes(self, bucket: str, keys: str, after: int) -> AsyncIterator[Change]:
        """What was written after a revision: for each key the last write, in order."""
        prefix = f"$KV.{bucket}."
        pending = 1
        while pending:
            inbox = self._client.new_inbox()
            answers = await self._client.subscribe(inbox)
            try:
                query = {"seq": after + 1, "next_by_subj": prefix + keys, "batch": _BATCH}
                await self._client.publish(f"$JS.API.DIRECT.GET.KV_{bucket}", json.dumps(query).encode(), inbox)
                pending = 0
                while True:
                    message = await answers.next_msg(REQUEST_SECONDS)
                    headers = message.headers or {}
                    # A message has the writer's own headers as well, maybe a Status among them.
                    if _SUBJECT not in headers:
                        pending = int(headers.get("Nats-Num-Pending", 0)) if headers["Status"] == _END_OF_BATCH else 0
                        _check_status(headers)
                        break
                    after = int(headers["Nats-Sequence"])
                    value = None if headers.get("KV-Operation") else message.data
                    yield Change(headers[_SUBJECT].removeprefix(prefix), after, value)
            finally:
                await answers.unsubscribe()

    async def last_revision(self, bucket: str) -> int:
        """The revision of the bucket's last write."""
        info = await self._server.call(f"STREAM.INFO.KV_{bucket}", None)
        last: int = info["state"]["last_seq"]
        return last

    async def put(self, bucket: str, key: str, value: bytes) -> None:
        """Write a key."""
        await self._client.jetstream().publish(f"$KV.{bucket}.{key}", value, timeout=REQUEST_SECONDS)

    async def delete(self, bucket: str, key: str) -> None:
        """Delete a key."""
        await self._client.jetstream().publish(f"$KV.{bucket}.{key}", b"", timeout=REQUEST_SECONDS, headers=_MARKER)

    def _stream(self, name: str, subjects: list[str]) -> Config:
        return {
            "name": name,
            "subjects": subjects,
            "storage": "file",
            "retention": "limits",
            "num_replicas": self._config.nats_replicas,
            "allow_direct": True,
        }

    def _bucket(self, bucket: str) -> Config:
        return {
            **self._stream(f"KV_{bucket}", [f"$KV.{bucket}.>"]),
            "max_msgs_per_subject": 1,
            "discard": "new",
            "deny_delete": True,
            "allow_rollup_hdrs": False,  # such a header on one key would empty the bucket
            "allow_msg_ttl": True,
            "duplicate_window": _DUPLICATE_SECONDS * _SECOND,
        }


def _of_size(size: int) -> Config:
    return {"max_bytes": size, "max_msg_size": size // 2}


async def connect(config: OperatorConfig, user: User, credentials: str | None) -> EventLog:
    """Connect as the operator; without credentials to a server that asks for none (tests).

    Raises:
        nats.errors.Error or OSError: the server is away; later losses heal by themselves.
    """
    options: dict[str, Any] = {"servers": config.nats_url.split(","), "inbox_prefix": user.inbox.encode()}
    if credentials:
        options["user_credentials"] = RawCredentials(credentials)
    return EventLog(await jetstream.connect("wisp-operator", **options), config)


def _check_status(headers: dict[str, str]) -> None:
    """Raises: nats.errors.Error: the server refused a direct get for another reason than that there is nothing."""
    if headers["Status"] not in {_END_OF_BATCH, "404"}:
        raise nats.errors.Error(f"direct get: {headers['Status']} {headers.get('Description', '')}")

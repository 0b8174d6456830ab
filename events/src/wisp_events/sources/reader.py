"""What all readers share: the wish (config and connection) as it is now, and the report of what became of it.

Invariant: a reader acts on the newest wish it has seen and keeps acting on it while NATS is away or a replica of it that lags
answers with an older one; a report names the version that it speaks of. Config and Secret are looked at every second, so that
a wish or a mended password needs no restart; a failure to look changes nothing. What a report says is short, whatever a server's errors
hold: one that the log or the operator could not take would say nothing at all.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.client import Client
from wisp_api import conditions, names
from wisp_api.source import ItemStatus, ReaderConfig, ReaderStatus

from wisp_events import log
from wisp_events.sources import behind

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
REPORT_SECONDS: Final = 30.0
REQUEST_SECONDS: Final = 3.0
REFUSAL_CHARACTERS: Final = 500
MESSAGE_CHARACTERS: Final = 1500
"""Of what a report says of the reader, and of each item: a server may answer with megabytes."""
RETRY_SECONDS: Final = (1.0, 2.0, 5.0)
CHECK_SECONDS: Final = 30.0
CONNECTION_DIRECTORY: Final = Path("/etc/wisp/connection")


class Trouble(Exception):  # noqa: N818 - becomes a condition, not an error to fix in code
    """Raised when a source can't be followed now: a reason of `conditions` and a message that says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        """Both go into the reader's status as they are."""
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Wish:
    """What the reader is to do, and with what."""

    config: ReaderConfig
    connection: dict[str, str] = field(repr=False)
    """The Secret's keys."""

    def value(self, key: str) -> str:
        """A key of the connection's Secret.

        Raises:
            Trouble: the Secret or the key is not there.
        """
        name, namespace = self.config.connection, self.config.namespace
        if not self.connection:
            raise Trouble(
                conditions.SECRET_NOT_FOUND,
                f"there is no Secret {name} in namespace {namespace}, or it is empty; create it",
            )
        if not (found := self.connection.get(key)):
            raise Trouble(conditions.INVALID_CONNECTION, f"Secret {name} has no key {key}; add it")
        return found

    def report(self, trouble: Trouble | None, items: dict[str, ItemStatus] | None = None) -> ReaderStatus:
        """The status of this wish: ready, or in trouble."""
        if trouble is None:
            return ReaderStatus(version=self.config.version, ready=True, items=items or {})
        return ReaderStatus(
            version=self.config.version, ready=False, reason=trouble.reason, message=trouble.message, items=items or {}
        )


class Reader:
    """The link of one reader to the operator, through two keys of NATS."""

    def __init__(
        self, client: Client, namespace: str, kind: str, connection: str, directory: Path = CONNECTION_DIRECTORY
    ) -> None:
        """`directory` is where the connection's Secret is mounted."""
        self._client = client
        self._key = f"reader.{namespace}.{kind}.{connection}"
        self._directory = directory
        self._moved = asyncio.Condition()
        self._status: ReaderStatus | None = None
        self._reported_at = -REPORT_SECONDS
        self._unsent = False
        self._refusal = ""
        self._newest = 0, ""
        self.wish: Wish | None = None
        """None until the operator's config was read."""

    async def follow(self) -> None:
        """Keep `wish` up to date and the report alive, until cancelled."""
        while True:
            wish = await self._look()
            if wish is not None and wish != self.wish:
                logger.info("config version %s", wish.config.version)
                self.wish = wish
                async with self._moved:
                    self._moved.notify_all()
            if self._unsent or self._reported_at + REPORT_SECONDS <= _now():
                await self._send()
            await asyncio.sleep(POLL_SECONDS)

    async def changed(self, since: Wish | None, seconds: float | None = None) -> Wish | None:
        """Return the wish when it differs from `since`, or after `seconds` as it is."""
        try:
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self.wish is not None and self.wish != since)
        except TimeoutError:
            pass
        return self.wish

    async def report(self, status: ReaderStatus) -> None:
        """Publish a status if it says something new; `follow` repeats it every 30 s."""
        status = _short(status)
        if self._status is not None and status == msgspec.structs.replace(self._status, time=status.time):
            return
        if self._status is None or status.reason != self._status.reason or status.message != self._status.message:
            logger.info(
                ": ".join(text for text in ("ready" if status.ready else "", status.reason, status.message) if text)
            )
        self._status = status
        await self._send()

    async def fulfil(self, wanted: Callable[[Wish], bool], follow: Callable[[Wish], Awaitable[None]]) -> None:
        """Follow wish after wish that wants something of a server on which nothing of ours is left behind, until cancelled.

        `follow` returns when the wish asks for another connection; its Trouble is reported, and it is called again.
        """
        wish: Wish | None = None
        failures = 0
        while True:
            wish = await self.changed(None) or wish
            if wish is None:
                continue
            started = _now()
            try:
                if wish.config.draining or not wanted(wish):
                    behind.only(())
                    await self.report(msgspec.structs.replace(wish.report(None), drained=wish.config.draining))
                    await self.changed(wish)
                else:
                    await follow(wish)
                continue
            except Trouble as trouble:
                await self.report(wish.report(trouble))
            except log.Fenced as fenced:
                logger.warning("starting over: %s", fenced)
            except Exception as error:  # noqa: BLE001 - nobody would be told, and nothing tried, while the process starts again and again
                await self.report(wish.report(unexpected(error, wish)))
            failures = 0 if _now() - started > CHECK_SECONDS else failures + 1
            await self.changed(wish, RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1])

    def missing(self) -> str:
        """What keeps this reader from doing its work, in a sentence; empty when nothing does."""
        if not self._client.is_connected:
            return "NATS is away"
        if self._status is None:
            return "waits for its config"
        return "" if self._status.ready or self._status.drained else f"{self._status.reason}: {self._status.message}"

    async def _send(self) -> None:
        if self._status is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        sent = self._status = msgspec.structs.replace(self._status, time=now)
        self._unsent = True
        try:
            subject = f"$KV.{names.KV_STATUS}.{self._key}"
            answer = await self._client.request(subject, msgspec.json.encode(sent), REQUEST_SECONDS)
        except (nats.errors.Error, OSError) as error:
            logger.warning("the report was not taken: %s", error or type(error).__name__)
            return
        if sent is self._status:  # the answer to an older report says nothing of one that was sent meanwhile
            self._note_refusal(answer.data.decode(errors="replace") if b'"error"' in answer.data else "")
            self._reported_at = _now()

    def _note_refusal(self, refusal: str) -> None:
        """What the log said against the report, empty for nothing: it is sent again, and each new refusal is one line."""
        if refusal and refusal != self._refusal:
            logger.warning("the report was refused: %s", refusal[:REFUSAL_CHARACTERS])
        self._refusal = refusal
        self._unsent = bool(refusal)

    async def _look(self) -> Wish | None:
        """The wish as it is now; None where it can't be read or there is none."""
        bucket = names.KV_SOURCES
        try:
            answer = await self._client.request(
                f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{self._key}", b"", REQUEST_SECONDS
            )
        except (nats.errors.Error, OSError):
            return None
        if not answer.data or "Status" in (answer.headers or {}):
            return None
        version = _version(answer.headers or {})
        if older(version, self._newest):
            return None
        self._newest = version
        try:
            config = msgspec.json.decode(answer.data, type=ReaderConfig)
        except msgspec.DecodeError:
            logger.exception("the config %s is not readable", self._key)
            return None
        connection = read_connection(self._directory)
        if not connection and config.draining and self.wish:
            connection = self.wish.connection  # a namespace's deletion takes the Secret first
        return Wish(config, connection)


def _short(status: ReaderStatus) -> ReaderStatus:
    """The report with each message cut off at MESSAGE_CHARACTERS."""
    items = {
        name: msgspec.structs.replace(item, message=conditions.shortened(item.message, MESSAGE_CHARACTERS))
        for name, item in status.items.items()
    }
    return msgspec.structs.replace(
        status, message=conditions.shortened(status.message, MESSAGE_CHARACTERS), items=items
    )


def older(one: tuple[int, str], newest: tuple[int, str]) -> bool:
    """Whether a message comes before another of its key, both as sequence and time; a bucket that was made anew counts again, later."""
    return one[0] < newest[0] and one[1] < newest[1]


def _version(headers: dict[str, str]) -> tuple[int, str]:
    """Sequence and time (UTC, comparable as text) of the message that a direct get answered with."""
    return int(headers.get("Nats-Sequence", 0)), headers.get("Nats-Time-Stamp", "").removesuffix("Z")


def read_connection(directory: Path) -> dict[str, str]:
    """The keys of a mounted Secret; empty where it is absent."""
    try:
        files = [path for path in directory.iterdir() if not path.name.startswith(".") and path.is_file()]
        return {path.name: path.read_text().strip() for path in files}
    except (OSError, UnicodeDecodeError):
        return {}


def _now() -> float:
    return asyncio.get_running_loop().time()


def unexpected(error: Exception, wish: Wish) -> Trouble:
    """What an error means that nobody expected: drivers raise any where a server's answer is none of its kind. Only the log has its words."""
    logger.error("the source failed; starting over", exc_info=error)
    return Trouble(
        conditions.SERVER_UNREACHABLE,
        f"the server's answers can't be used ({type(error).__name__}): does the connection's Secret name a server for source "
        f"{wish.config.kind}? The reader's log says more; trying again",
    )


async def run_until_one_ends(*work: Coroutine[Any, Any, None]) -> None:
    """Run what follows a database side by side; when one part ends the others are, and an error of it is raised."""
    working = [asyncio.create_task(each) for each in work]
    try:
        done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
        for finished in done:
            finished.result()
    finally:
        for each in working:
            each.cancel()
        await asyncio.gather(*working, return_exceptions=True)

"""A namespace's dead letters as the log holds them: read and removed.

Each namespace has a stream of its own, in an account that holds nothing else: what one writes pushes nobody else's letters out. Letters
of before that are in a stream that all namespaces shared, until they have aged out.

Invariant: a namespace's letters are in one order. The operator has streams begin above the shared one's last number; so the shared
one's come first, and a number stands for one letter.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Final, NamedTuple

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from wisp_api import cloudevent, names
from wisp_api.route import DeadLetter

LAST: Final = 2**63 - 1
"""No letter has a greater number."""


class Letter(NamedTuple):
    """A letter and its place."""

    id: int
    content: DeadLetter


class _Stream(NamedTuple):
    """Where letters are; it may not exist."""

    js: JetStreamContext
    name: str

    async def get(self, sequence: int, subjects: str = "") -> RawStreamMsg | None:
        """The message of this number, or with `subjects` the first of those from it on."""
        try:
            if subjects:
                return await self.js.get_msg(self.name, sequence, subjects, direct=True, next=True)
            return await self.js.get_msg(self.name, sequence, direct=True)
        except nats.js.errors.NotFoundError:
            return None
        except nats.errors.NoRespondersError:
            if await self.last() is None:
                return None
            raise

    async def last(self) -> int | None:
        """The number of its last message, None where there is no such stream."""
        try:
            return (await self.js.stream_info(self.name)).state.last_seq
        except nats.js.errors.NotFoundError:
            return None


class Letters:
    """Dead letters. All methods raise `bucket.LOG_ERRORS` while the log is away."""

    def __init__(self, client: Client) -> None:
        """Of the log that this client is connected to."""
        self._own = client.jetstream(prefix=names.LETTERS_API)
        self._shared = _Stream(client.jetstream(), names.SHARED_LETTERS)

    async def last(self, namespace: str) -> int:
        """The number of the last letter that there is, at least."""
        own = await self._of(namespace).last()
        return own if own is not None else await self._shared.last() or 0

    async def one(self, namespace: str, number: int) -> Letter | None:
        """The namespace's letter of this number."""
        if not 0 < number <= LAST:
            return None
        for stream in (self._of(namespace), self._shared):
            found = await stream.get(number)
            if found and (found.subject or "").startswith(f"wisp.dead.{namespace}."):
                return Letter(number, _decode(namespace, found.data or b""))
        return None

    async def following(
        self, namespace: str, subscription: str | None, after: int, until: int = LAST
    ) -> AsyncGenerator[Letter, None]:
        """The next letters of a namespace or of one of its Subscriptions, one at a time: each may have several MiB."""
        subjects = names.dead_letter_subjects(namespace)
        if subscription:
            subjects = names.dead_letter_subject(namespace, "subscription", subscription)
        for stream in (self._shared, self._of(namespace)):
            while after < until:
                message = await stream.get(after + 1, subjects)
                if message is None or (message.seq or 0) > until:
                    break
                after = message.seq or 0
                yield Letter(after, _decode(namespace, message.data or b""))

    async def remove(self, namespace: str, number: int) -> None:
        """Remove a letter; one that another replica or its age has just removed is removed, too."""
        for stream in (self._of(namespace), self._shared):
            with contextlib.suppress(nats.js.errors.NotFoundError):
                try:
                    await stream.js.delete_msg(stream.name, number)
                except nats.js.errors.APIError:
                    if await stream.get(number):
                        raise

    def _of(self, namespace: str) -> _Stream:
        return _Stream(self._own, names.dead_letter_stream(namespace))


def _decode(namespace: str, data: bytes) -> DeadLetter:
    """A letter as it is stored; what is none is shown as what it is, so that it hides no other and can be dropped."""
    try:
        letter = msgspec.json.decode(data, type=DeadLetter)
        if letter.event is not None:
            cloudevent.decode(letter.event)
    except cloudevent.NOT_READABLE as error:
        text = data.decode(errors="replace")
        return DeadLetter(
            reason="Malformed", message=f"this is no dead letter: {error}", time="", namespace=namespace, input=text
        )
    return letter

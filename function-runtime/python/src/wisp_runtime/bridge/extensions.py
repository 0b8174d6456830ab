"""The Extensions API, ``/2020-01-01/extension``: who is registered, who waits for which event.

Invariant: an extension gets each event that it subscribed to once, in order. The next invocation waits until all that got
the last one have asked for more, as in AWS Lambda.
"""

from __future__ import annotations

import json
import os
from collections import deque
from typing import TYPE_CHECKING, Any

from wisp_runtime.bridge.server import refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from wisp_runtime.bridge.server import Exchange
    from wisp_runtime.bridge.settings import Settings

PREFIX = "/2020-01-01/extension/"
MAX_EXTENSIONS = 10
MAX_PENDING = 1024  # events for an extension that doesn't ask; beyond, the oldest goes
INVOKE, SHUTDOWN = "INVOKE", "SHUTDOWN"
_IDENTIFIER = "lambda-extension-identifier"
_ERROR_TYPE = "lambda-extension-function-error-type"


class Extension:
    """One that is started or registered.

    Attributes:
        name: The executable's, or what an extension inside the runtime calls itself.
        external: Whether it is an executable of ours.
        id: Its identifier; empty until it is registered.
        events: What it subscribed to.
        ready: Whether it has asked for an event.
    """

    def __init__(self, name: str, *, external: bool) -> None:
        """Expect or take it."""
        self.name = name
        self.external = external
        self.id = ""
        self.events: list[str] = []
        self.ready = False
        self.waiting: Exchange | None = None
        self.pending: deque[dict[str, Any]] = deque(maxlen=MAX_PENDING)

    @property
    def state(self) -> str:
        """Its state, by AWS' names."""
        if not self.id:
            return "Started"
        return "Ready" if self.ready else "Registered"

    def tell(self, event: dict[str, Any]) -> None:
        """Give it an event, now or when it asks."""
        self.pending.append(event)
        self.deliver()

    def deliver(self) -> None:
        """Answer its poll with the oldest event, if there are both."""
        if self.waiting is None or not self.pending:
            return
        exchange, self.waiting = self.waiting, None
        exchange.answer(200, self.pending.popleft(), {"Lambda-Extension-Event-Identifier": new_identifier()})


class Extensions:
    """All of them."""

    def __init__(
        self, settings: Settings, on_change: Callable[[], None], on_failure: Callable[[str, str, str], None]
    ) -> None:
        """Have none; ``on_failure`` gets the kind of error (``InitError``, ``ExitError``), its type and what was said."""
        self._settings = settings
        self._on_change = on_change
        self._on_failure = on_failure
        self.all: list[Extension] = []
        self.open = True  # for registrations: until the function is ready

    def expect(self, name: str) -> Extension:
        """Wait for an executable to register."""
        extension = Extension(name, external=True)
        self.all.append(extension)
        return extension

    @property
    def registered(self) -> bool:
        """Whether all executables have registered."""
        return all(extension.id for extension in self.all)

    @property
    def ready(self) -> bool:
        """Whether all have asked for an event."""
        return all(extension.ready for extension in self.all)

    @property
    def idle(self) -> bool:
        """Whether all that are told of invocations wait for one."""
        return all(extension.waiting is not None for extension in self.all if INVOKE in extension.events)

    def tell(self, kind: str, event: dict[str, Any]) -> None:
        """Give an event to who subscribed to its kind."""
        for extension in self.all:
            if kind in extension.events:
                extension.tell({"eventType": kind, **event})

    def find(self, exchange: Exchange) -> Extension | None:
        """Find who asks; refuse and return None if it is nobody."""
        identifier = exchange.headers.get(_IDENTIFIER, "")
        for extension in self.all:
            if identifier and extension.id == identifier.lower():
                return extension
        if not identifier:
            problem = "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header"
        elif not is_identifier(identifier):
            problem = "Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier"
        else:
            problem = "Extension.UnknownExtensionIdentifier", f"Unknown extension {identifier}"
        exchange.refuse(403, *problem)
        return None

    def begin(self, exchange: Exchange) -> None:
        """Say what becomes of a request."""
        route = exchange.path.removeprefix(PREFIX)
        found = {
            "register": ("POST", self._register),
            "event/next": ("GET", self._next),
            "init/error": ("POST", lambda exchange: self._failed(exchange, "InitError")),
            "exit/error": ("POST", lambda exchange: self._failed(exchange, "ExitError")),
        }.get(route)
        if found is not None:
            wrong = refuse(405, "MethodNotAllowed", f"{exchange.method} is not served here")
            exchange.complete = found[1] if exchange.method == found[0] else wrong

    def _register(self, exchange: Exchange) -> None:
        name = exchange.headers.get("lambda-extension-name", "")
        if not name:
            exchange.refuse(403, "Extension.InvalidExtensionName", "Empty extension name")
            return
        try:
            events = _read_events(bytes(exchange.body))
        except ValueError as error:
            exchange.refuse(403, "InvalidRequestFormat", str(error))
            return
        extension = next((extension for extension in self.all if extension.name == name), None)
        problem = self._check(extension, name, events)
        if problem:
            exchange.refuse(403, *problem)
            return
        if extension is None:
            extension = Extension(name, external=False)
            self.all.append(extension)
        extension.events = events
        self._welcome(exchange, extension)
        self._on_change()

    def _welcome(self, exchange: Exchange, extension: Extension) -> None:
        """Give an extension its identifier, and say whose it is."""
        extension.id = new_identifier()
        settings = self._settings
        document = {
            "functionName": settings.function,
            "functionVersion": settings.version,
            "handler": settings.handler,
        }
        if "accountId" in exchange.headers.get("lambda-extension-accept-feature", ""):
            document["accountId"] = (settings.arn.split(":") + [""] * 5)[4]
        exchange.answer(200, document, {"Lambda-Extension-Identifier": extension.id})

    def _check(self, extension: Extension | None, name: str, events: list[str]) -> tuple[str, str] | None:
        """Say why an extension can't register, if it can't."""
        external = extension is not None and extension.external
        for event in events:
            if event not in (INVOKE, SHUTDOWN):
                return "Extension.InvalidEventType", f"{event}: InvalidEventType"
            if event == SHUTDOWN and not external:
                return "Extension.InvalidEventType", f"{event}: ShutdownEventNotSupportedForInternalExtension"
        if extension is not None and extension.id:
            message = f"State transition from {extension.state} to Registered failed for extension {name}."
            return "Extension.InvalidExtensionState", f"{message} Error: State transition is not allowed"
        if extension is None and not self.open:
            return "Extension.RegistrationClosed", "Extension registration closed already"
        if extension is None and len(self.all) >= MAX_EXTENSIONS:
            return "Extension.TooManyExtensions", f"Extension limit ({MAX_EXTENSIONS}) reached"
        return None

    def _next(self, exchange: Exchange) -> None:
        extension = self.find(exchange)
        if extension is None:
            return
        extension.ready = True
        extension.waiting = exchange

        def broken(_: Exchange) -> None:
            if extension.waiting is exchange:
                extension.waiting = None

        exchange.broken = broken
        extension.deliver()
        self._on_change()

    def _failed(self, exchange: Exchange, kind: str) -> None:
        extension = self.find(exchange)
        if extension is None:
            return
        error_type = exchange.headers.get(_ERROR_TYPE, "")
        if not error_type:
            name = "Lambda-Extension-Function-Error-Type"
            exchange.refuse(403, "Extension.MissingHeader", f"{name} not found")
            return
        exchange.accept()
        text = bytes(exchange.body).decode("utf-8", "replace")
        self._on_failure(f"Extension.{kind}", extension.name, f"{error_type} {text}".strip())


def _read_events(body: bytes) -> list[str]:
    """Read the body of a registration.

    Raises:
        ValueError: It isn't ``{"events": [...]}``.
    """
    document = json.loads(body or b"{}")
    events = document.get("events") or [] if isinstance(document, dict) else None
    if not isinstance(events, list) or not all(isinstance(event, str) for event in events):
        raise ValueError('the body must be {"events": ["INVOKE", "SHUTDOWN"]}')
    return events


def new_identifier() -> str:
    """Make a random UUID, without the module's import."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def is_identifier(text: str) -> bool:
    """Whether it is a UUID."""
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and not set("".join(parts)) - set("0123456789abcdefABCDEF")

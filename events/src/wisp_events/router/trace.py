"""The trace of an event that came without one.

Invariant: it follows from the event's source and id alone, so that all that an upload, a row or a tick sets going is one
trace, whatever Subscription, attempt, router or redrive it comes through. One that an event brings is never touched.
Specification: https://www.w3.org/TR/trace-context/, CloudEvents' distributed tracing extension.
"""

from hashlib import blake2b

from wisp_api.cloudevent import Event


def begin_trace(event: Event) -> None:
    """Give an event its `traceparent`, sampled because nobody before us has decided otherwise."""
    if event.traceparent is None:
        ids = blake2b(f"{event.source}\n{event.id}".encode(), digest_size=24).hexdigest()
        event.traceparent = f"00-{ids[:32]}-{ids[32:]}-01"
        event.tracestate = None  # it belongs to a trace that can't be told

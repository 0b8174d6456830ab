"""The words in which an invocation is asked for at the ingest: AWS Lambda's, and some of our own."""

from typing import Final

TYPE: Final = "x-amz-invocation-type"
"""Header of a request: which of these it is; absent: EVENT."""
EVENT: Final = "Event"
"""Stored, and answered before it runs."""
RESPONSE: Final = "RequestResponse"
"""Answered with what the function answers."""
REVISION: Final = "wisp-revision"
"""Header of a RequestResponse: the revision to call."""
TIMEOUT: Final = "wisp-timeout-seconds"
"""Header of a RequestResponse: how long the function may take, its `timeoutSeconds`; absent: DEFAULT_SECONDS."""
TOKEN: Final = "wisp-function-authorization"  # noqa: S105 - a name
"""Header of a RequestResponse: what the function gets as `caller.HEADER`, where it asks for a token."""
VERSION: Final = "x-amz-executed-version"
"""Header of an answer that the ingest has passed on: the revision's name. Its own answers have none."""
LONGEST: Final = 6 * 1024 * 1024
"""Bytes of an event, and of an answer."""
DEFAULT_SECONDS: Final = 30
MOST_SECONDS: Final = 900
START_SECONDS: Final = 120
"""What a call may take besides the function's own time, which is a cold start's; less than `wisp invoke` waits, so that it reads why."""

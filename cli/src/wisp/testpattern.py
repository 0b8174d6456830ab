"""`wisp events test-pattern`: would a Subscription's filter let an event through?"""

import json
import sys
from pathlib import Path
from typing import Any

from wisp_api import cloudevent, pattern
from wisp_api.steps import TooComplex

from wisp.errors import UsageError
from wisp.project import read_yaml


def matches(pattern_file: str, event_file: str) -> bool:
    """Whether the pattern (JSON or YAML) matches the event (a CloudEvent in JSON or YAML); `-` reads standard input.

    Raises:
        UsageError: a file can't be read, or the pattern or event is wrong; the message names the path of the mistake.
    """
    wanted = read_yaml(_text(pattern_file), pattern_file)
    if not isinstance(wanted, dict):
        raise UsageError(f"{pattern_file}: a pattern is a mapping of names, as {{data: {{op: [insert]}}}}")
    try:
        matcher = pattern.compile(wanted)
    except pattern.PatternError as error:
        raise UsageError(f"{pattern_file}: {error}") from None
    content: Any = read_yaml(_text(event_file), event_file)
    try:
        return matcher(cloudevent.decode(json.dumps(content).encode()))
    except TooComplex as error:
        raise UsageError(f"{event_file}: {error}") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{event_file} is no CloudEvent: {error}") from None


def _text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name} can't be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None

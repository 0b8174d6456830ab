"""Log lines that are JSON objects already, as Powertools, python-json-logger, structlog and pino write them.

Invariant: such a line is wrapped into no other, and nothing that it says is changed; what a log line has to have is put
before it where it is missing. AWS Lambda's JSON log format does the same.
"""

from __future__ import annotations

from wisp_runtime.encoding import make_decoder, make_encoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def complete(line: str, wanted: dict[str, str]) -> str | None:
    """Return a JSON object's line with what it lacks of ``wanted``, its time first; None for a line that is none."""
    if not (line.startswith("{") and line.rstrip().endswith("}")):
        return None
    try:
        said = _decode(line)
    except (ValueError, RecursionError):
        return None
    if not said:
        return None
    missing: dict[str, Any] = {name: value for name, value in wanted.items() if value and name not in said}
    if "time" not in said:
        return f"{_encode(missing)[:-1]},{line.lstrip()[1:]}"
    # The time has to stand first: by that the front knows a line that is finished.
    return _encode({"time": said.pop("time"), **missing, **said})


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_encode = make_encoder(ascii_only=False)
_decode = make_decoder(parse_constant=_refuse)

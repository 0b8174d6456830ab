"""requirements.txt as `spec.requirements`: the packages of the index alone, each line checked before anything reaches the cluster."""

import re
from pathlib import Path
from typing import Final

from wisp_api.requirements import ELSEWHERE, PATTERN

from wisp.errors import UsageError

FILE: Final = "requirements.txt"
_COMMENT: Final = re.compile(r"(^|\s)#.*")


def read(folder: Path) -> list[str]:
    """The requirements of a folder's requirements.txt; none where there is no such file.

    Raises:
        UsageError: a line is more than a package of the index; the message names it.
    """
    path = folder / FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if text := _COMMENT.sub("", line).strip():
            if told := _wrong(text):
                raise UsageError(f"{path}, line {number}: {text}: {told}")
            found.append(text)
    return found


def _wrong(text: str) -> str:
    """What is wrong with a line, and what to do; empty if nothing."""
    if "--hash" in text or text.endswith("\\"):
        return (
            "hashes are not taken, those of the index are checked: export the list without them (uv export --no-hashes)"
        )
    if re.search(ELSEWHERE, text):
        return "only packages of the package index are taken, no options, URLs and paths: bring others as a layer or beside the code"
    if not re.search(PATTERN, text):
        return (
            "it is no requirement: write Pillow==11.0.0, or requests[socks]>=2.31,<3, or tomli; python_version < '3.11'"
        )
    return ""

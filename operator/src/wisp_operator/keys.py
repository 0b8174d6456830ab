"""What queues and indexes tell objects apart by."""

from typing import NamedTuple


class FunctionKey(NamedTuple):
    """A Function."""

    namespace: str
    name: str

"""JSON that tenants have a hand in, decoded so that whatever is wrong with it is one error.

msgspec raises its own for what is no JSON, but Python's for bytes that are no UTF-8 and for what is nested too deeply. Invariant: nothing that
stands in a tenant's object, or that a tenant wrote into the log, ends the operator, which is everybody's: who decodes it catches DecodeError.
"""

from typing import TypeVar

import msgspec

Value = TypeVar("Value")


def decode(raw: bytes | bytearray | str, kind: type[Value]) -> Value:
    """The value.

    Raises:
        msgspec.DecodeError: it is none of this kind.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"JSON can't be read: {error}") from None

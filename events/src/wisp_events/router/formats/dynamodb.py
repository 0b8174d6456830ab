"""A row event as a record of a DynamoDB stream, as AWS Lambda hands it to a function.

Specification: DynamoDB Streams API reference, `Record`, `StreamRecord` and `AttributeValue`.

Invariant: what comes out is DynamoDB's typed JSON, which its own clients read (`boto3.dynamodb.types.TypeDeserializer`): a number that is
beyond DynamoDB's 38 digits or its range is a string (`S`), with all its digits.
How it could fail: a reader of the log that gives numbers in a form that JSON has and DynamoDB has not; `test_formats` tries.
"""

from collections.abc import Callable
from decimal import Clamped, Context, Decimal, Inexact, Overflow, Rounded, Underflow
from typing import Any, Final

import msgspec
from wisp_api import document
from wisp_api.cloudevent import Event

from wisp_events.router.formats import REGION, rows

NAMES: Final = {
    "insert": "INSERT", "snapshot": "INSERT", "update": "MODIFY", "delete": "REMOVE", "truncate": "TRUNCATE", "gap": "GAP",
}  # fmt: skip
"""DynamoDB has no counterpart of the last two: whoever keeps a copy has to know of them."""
_DIGITS: Final = 38
_LARGEST: Final = 10**_DIGITS
_NUMBERS: Final = Context(
    prec=_DIGITS, Emin=-128, Emax=126, traps=[Clamped, Overflow, Inexact, Rounded, Underflow]
)  # as boto3 has it


class _Number(str):
    """The digits of a number with a fraction or an exponent, as they stand in the log."""

    __slots__ = ()


class _Row(msgspec.Struct):
    op: str
    key: dict[str, Any]
    old: dict[str, Any] | None = None
    new: dict[str, Any] | None = None
    message: str | None = None


_decoder = msgspec.json.Decoder(_Row, float_hook=_Number)
_encode = msgspec.json.Encoder().encode


def record(namespace: str, event: Event, stored: float) -> bytes:
    """The record.

    Raises:
        ValueError: the event tells of no row.
        RecursionError: a value is nested too deeply.
    """
    raw = rows.data(event)
    if not document.is_light(raw):
        raise ValueError(f"the row has more than {document.VALUES:,} values, too many for a record of DynamoDB's")
    row = _decoder.decode(raw)
    done = rows.operation(row.op, row.key, row.old, row.new)
    change: dict[str, Any] = {
        "ApproximateCreationDateTime": int(rows.moment(event, stored)),
        "Keys": image(row.key),
        "SequenceNumber": event.id,
        "SizeBytes": len(raw),
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    if row.new is not None and done != rows.DELETE:
        change["NewImage"] = image(row.new)
    if row.old is not None and done != rows.INSERT:
        change["OldImage"] = image(row.old)
    made = {
        "eventID": event.id,
        "eventName": NAMES.get(done, done.upper()),
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": REGION,
        "dynamodb": change,
        "eventSourceARN": f"arn:wisp:dynamodb:{REGION}:{namespace}:table/{event.subject}/stream/{rows.connection(event)}",
    }
    return _encode(made if row.message is None else made | {"message": row.message})


def image(row: rows.Row) -> dict[str, Any]:
    """A row's columns, each an AttributeValue."""
    return {name: _TYPED[type(value)](value) for name, value in row.items()}


def _integer(value: int) -> dict[str, str]:
    return {"N" if -_LARGEST < value < _LARGEST else "S": str(value)}


def _decimal(value: _Number) -> dict[str, str]:
    return {"N" if _fits(value) else "S": str(value)}


def _fits(digits: str) -> bool:
    """Whether DynamoDB can hold the number."""
    if len(digits) <= _DIGITS and "e" not in digits and "E" not in digits:
        return True
    try:
        _NUMBERS.create_decimal(Decimal(digits))
    except ArithmeticError:
        return False
    return True


_TYPED: Final[dict[type, Callable[[Any], dict[str, Any]]]] = {
    str: lambda value: {"S": value},
    int: _integer,
    _Number: _decimal,
    bool: lambda value: {"BOOL": value},
    type(None): lambda _: {"NULL": True},
    list: lambda value: {"L": [_TYPED[type(one)](one) for one in value]},
    dict: lambda value: {"M": image(value)},
}

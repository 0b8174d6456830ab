"""Which form a handler takes: found out from its parameters, or checked against what the Function says.

The rule of ``auto``, on the parameters a call must or can fill by position:

1. one of them annotated ``CloudEvent``: cloudevent; ``Request``: http; ``LambdaContext``: lambda;
2. two: lambda;
3. three, named scope, receive and send: asgi;
4. one, named event, cloudevent, cloud_event or ce: cloudevent; named request or req: http;
5. anything else (none, another name, three required) is refused at start with the way out: say the signature.

Whatever the form, a call with its number of arguments must be possible, so a wrong arity shows at start and not with the
first event.
"""

from __future__ import annotations

from wisp_runtime.errors import InitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ARGUMENTS = {"lambda": 2, "cloudevent": 1, "http": 1, "asgi": 3}
_ASGI = ["scope", "receive", "send"]
_BY_ANNOTATION = {
    "CloudEvent": "cloudevent",
    "LambdaContext": "lambda",
    "Request": "http",
    "AsyncRequest": "http",
    "BaseRequest": "http",
}
_BY_NAME = {
    "event": "cloudevent",
    "cloudevent": "cloudevent",
    "cloud_event": "cloudevent",
    "ce": "cloudevent",
    "request": "http",
    "req": "http",
}
_CALL = {
    "lambda": "handler(event, context)",
    "cloudevent": "handler(event)",
    "http": "handler(request)",
    "asgi": "handler(scope, receive, send)",
}
_VARARGS, _COROUTINE = 0x04, 0x80  # inspect.CO_VARARGS, CO_COROUTINE, without inspect's 8 ms
_FOR_EVER = 1000


class Parameters:
    """What can be passed to a callable by position."""

    def __init__(self, names: list[str], annotations: list[Any], required: int, most: int) -> None:
        """Take the positional parameters' names and annotations, how many a call needs and how many it can have."""
        self.names = names
        self.annotations = annotations
        self.required = required
        self.most = most


def find_signature(handler: Callable[..., Any], wanted: str, name: str) -> str:
    """Return the handler's form: the ``wanted`` one if it isn't ``auto`` and can be called so.

    Raises:
        InitError: The handler can't be called in the wanted form, or ``auto`` can't tell which one it has.
    """
    parameters = positional_parameters(handler)
    if wanted != "auto":
        if parameters.required <= ARGUMENTS[wanted] <= parameters.most:
            return wanted
        raise InitError(
            "Runtime.HandlerSignatureError",
            f"Handler '{name}' can't be called as {_CALL[wanted]}: {_count(parameters)}; "
            f"change it, or spec.signature, which is {wanted}",
        )
    form = _guess(parameters)
    if form and parameters.required <= ARGUMENTS[form] <= parameters.most:
        return form
    raise InitError(
        "Runtime.HandlerSignatureError",
        f"Can't tell the signature of handler '{name}', {_count(parameters)}: write it as handler(event, context) for "
        "lambda, handler(event) for cloudevent or handler(request) for http, or set spec.signature",
    )


def is_asynchronous(handler: Callable[..., Any]) -> bool:
    """Whether calling the handler gives a coroutine, as far as can be seen without calling it."""
    call = handler if hasattr(handler, "__code__") else getattr(handler, "__call__", None)  # noqa: B004 - not a test
    code = getattr(call, "__code__", None) or getattr(getattr(handler, "func", None), "__code__", None)
    return bool(code and code.co_flags & _COROUTINE)


def positional_parameters(handler: Callable[..., Any]) -> Parameters:
    """Read the parameters of a handler: cheaply of a plain function, by ``inspect`` of anything else."""
    code = getattr(handler, "__code__", None)
    if code is None or hasattr(handler, "__wrapped__") or hasattr(handler, "__self__"):
        return _inspect(handler)
    names = list(code.co_varnames[: code.co_argcount])
    annotations = getattr(handler, "__annotations__", {})
    defaults = getattr(handler, "__defaults__", None) or ()
    keyword_only = code.co_kwonlyargcount - len(getattr(handler, "__kwdefaults__", None) or ())
    required = len(names) - len(defaults) if keyword_only <= 0 else _FOR_EVER
    most = _FOR_EVER if code.co_flags & _VARARGS else len(names)
    return Parameters(names, [annotations.get(name) for name in names], required, most)


def _inspect(handler: Callable[..., Any]) -> Parameters:
    """Read the parameters of a bound method, a decorated function, a partial, an instance or a class."""
    import inspect  # noqa: PLC0415 - 8 ms at start, only where the handler needs it

    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):  # a callable of C says nothing about itself
        return Parameters([], [], 0, _FOR_EVER)
    empty = inspect.Parameter.empty
    by_position = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    required = sum(one.default is empty for one in by_position)
    if any(one.kind is one.KEYWORD_ONLY and one.default is empty for one in parameters):
        required = _FOR_EVER
    most = _FOR_EVER if any(one.kind is one.VAR_POSITIONAL for one in parameters) else len(by_position)
    return Parameters([one.name for one in by_position], [one.annotation for one in by_position], required, most)


def _guess(parameters: Parameters) -> str:
    """Apply the rule of ``auto``; empty if it can't tell."""
    for annotation in parameters.annotations:
        text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        form = _BY_ANNOTATION.get(text.strip("'\"").rpartition(".")[2])
        if form:
            return form
    if parameters.names == _ASGI:
        return "asgi"
    count = len(parameters.names)
    if parameters.required <= 2 <= count or (count == 0 and parameters.most >= 2):  # noqa: PLR2004 - event and context
        return "lambda" if count != 1 else ""
    return _BY_NAME.get(parameters.names[0].lower(), "") if count == 1 else ""


def _count(parameters: Parameters) -> str:
    """Say what the handler takes."""
    if parameters.required >= _FOR_EVER:
        return "which has a keyword-only parameter without a default"
    return f"which takes ({', '.join(parameters.names)})" if parameters.names else "which takes no parameters"

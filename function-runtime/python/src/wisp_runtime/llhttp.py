"""httptools' parser of requests, without the package around it and without ``typing``, which both import for names alone.

That is a sixth of a start and 1.5 MiB. The parser is imported beneath packages that are bare, and with a stand-in for
``typing``, unless somebody has imported the real ones; none of that is left behind.

Invariant: who imports ``httptools`` later gets all of it, with the same classes of errors as the parser here raises.
"""

from __future__ import annotations

import sys
from _frozen_importlib_external import PathFinder
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def _bare(name: str, **members: Any) -> ModuleType:
    module = type(sys)(name)
    vars(module).update(members)
    return module


def _import_parser() -> tuple[Any, Any]:
    """Return the module of the parser and the one of its errors."""
    spec = PathFinder.find_spec("httptools")
    folder = next(iter(spec.submodule_search_locations or ())) if spec else ""
    bare = {
        "typing": _bare("typing", Optional=None),
        "httptools": _bare("httptools", __path__=[folder]),
        "httptools.parser": _bare("httptools.parser", __path__=[f"{folder}/parser"]),
    }
    bare = {name: module for name, module in bare.items() if name not in sys.modules}
    sys.modules.update(bare)
    try:
        return import_module("httptools.parser.parser"), import_module("httptools.parser.errors")
    finally:
        for name in bare:
            del sys.modules[name]


_parser, _errors = _import_parser()
HttpRequestParser = _parser.HttpRequestParser
HttpParserError, HttpParserCallbackError = _errors.HttpParserError, _errors.HttpParserCallbackError
HttpParserUpgrade = _errors.HttpParserUpgrade

"""A start imports little, and nobody notices: neither the function, nor what it imports later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httptools
import pytest
from unit.runtime.conftest import SOURCE
from wisp_runtime.encoding import make_decoder, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.runtime.conftest import FunctionProcess

DEAR = {
    "typing",
    "re",
    "enum",
    "functools",
    "collections",
    "contextlib",
    "json",
    "signal",
    "socket",
    "asyncio",
    "logging",
}


def run(code: str) -> Any:
    """Run code in an interpreter that begins as the image's does, and return what it prints as JSON."""
    folders = [str(SOURCE), str(Path(httptools.__file__).parents[1])]
    begin = f"import sys\nsys.path += {folders!r}\nimport wisp_runtime.__main__, wisp_runtime.lambda_form, wisp_runtime.invocation\n"
    return json.loads(subprocess.check_output([sys.executable, "-I", "-S", "-c", begin + code]))


def test_a_start_imports_none_of_the_dear_modules() -> None:
    """What front and worker of a Lambda handler import brings none of the modules that cost milliseconds and MiB."""
    assert DEAR.isdisjoint(run("modules = sorted(sys.modules)\nimport json\nprint(json.dumps(modules))"))


def test_httptools_is_whole_for_who_imports_it_later() -> None:
    """The front's parser leaves no bare package behind, and its errors are those of the package."""
    code = """
import json, typing, httptools
class Protocol: pass
try:
    httptools.HttpRequestParser(Protocol()).feed_data(b"no HTTP")
except httptools.HttpParserError:
    caught = True
print(json.dumps([caught, typing.Protocol in httptools.HTTPProtocol.__mro__, httptools.parse_url(b"/a?b").query.decode()]))
"""
    assert run(code) == [True, True, "b"]


def test_a_functions_module_never_stands_in_for_the_standard_librarys(serve: Callable[..., FunctionProcess]) -> None:
    """A function beside whose code lie modules named like those that a start no longer imports gets the real ones."""
    code = "import json, typing, re, enum, socket\ndef handler(event, context):\n    return [json.dumps(event), str(typing.Any)]\n"
    names = ("json", "typing", "re", "enum", "socket", "signal")
    function = serve({"app.py": code} | {f"{name}.py": "raise RuntimeError\n" for name in names})
    assert function.invoke({"a": 1}).json == ['{"a": 1}', "typing.Any"]


def test_nor_does_one_of_a_folder_that_it_adds(serve: Callable[..., FunctionProcess]) -> None:
    """Backports in a folder that the code itself puts first on the path stand in for nothing either."""
    names = ("json", "typing", "enum", "re", "contextlib")
    code = f"import sys, os\nsys.path.insert(0, os.path.dirname(__file__) + '/vendor')\nimport {', '.join(names)}\n"
    code += "def handler(event, context):\n    return [json.dumps(event), str(typing.Any)]\n"
    function = serve({"app.py": code} | {f"vendor/{name}.py": "raise RuntimeError\n" for name in names})
    assert function.invoke({"a": 1}).json == ['{"a": 1}', "typing.Any"]


@pytest.mark.parametrize(
    "text", ["{", "[1,", "tru", "", "[1] x", ' {"a": [1.5, 1e999, NaN]} ', '"\\ud800"', '"\t"', "-", "1"]
)
def test_json_is_read_as_the_standard_library_reads_it(text: str) -> None:
    """The C scanner alone gives the same values and the same errors."""

    def read(by: Callable[[str], Any]) -> str:
        try:
            return repr(by(text))
        except ValueError as error:
            return str(error)

    assert read(make_decoder()) == read(json.loads)


def test_the_first_text_that_is_no_json_is_refused() -> None:
    """Where nobody has imported ``json`` yet, the scanner's error is told all the same."""
    code = """
from wisp_runtime.encoding import read_json
try:
    read_json("[1,")
except ValueError as error:
    import json
    print(json.dumps(str(error)))
"""
    assert run(code) == "Expecting value: line 1 column 4 (char 3)"


def test_json_is_written_as_the_standard_library_writes_it() -> None:
    """Blanks and escapes are the same; a value that contains itself is refused."""
    value = {"a": [1, "ü", None], "b": float("nan")}
    assert write_json(value) == json.dumps(value)
    value["a"] = value
    with pytest.raises(ValueError, match="Circular"):
        write_json(value)

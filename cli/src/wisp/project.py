"""A folder that `wisp deploy` brings to a cluster: wisp.yaml, with several functions and subscriptions, and their code.

    functions:
      hello:                         # the rest is the spec of a Function
        runtime: python3.13
        handler: app.handler
        code: {folder: function}     # or files, zip or image, as in the spec
    subscriptions:
      on-upload:                     # the spec of a Subscription
        function: {name: hello}
        source: {...}

A requirements.txt in the folder of a Python function becomes its `requirements`, unless the spec has some.
A folder with folders or more than 192 KiB goes as a zip: `code: {folder: function, zip: {bucket: code, connection: {name: my-s3}}}`.

Invariant: what `load` returns has been checked against the types, so that a mistake is named by its path in wisp.yaml before anything
reaches the cluster. The rules that only the API server can tell it tells, with the same paths (`place`).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import yaml
from wisp_api import names, pattern
from wisp_api.function import CODE_BYTES, FunctionSpec
from wisp_api.subscription import SubscriptionSpec

from wisp import requirements
from wisp.archive import pack
from wisp.cluster import Object
from wisp.errors import UsageError
from wisp.shape import check
from wisp.template import name_for

FILE: Final = "wisp.yaml"
_SECTIONS: Final[Mapping[str, tuple[str, type[msgspec.Struct]]]] = {
    "functions": ("Function", FunctionSpec),
    "subscriptions": ("Subscription", SubscriptionSpec),
}
_SECTION_OF: Final = {kind: section for section, (kind, _) in _SECTIONS.items()}


class _Loader(yaml.SafeLoader):
    """YAML's core types without timestamps: a time stays the text that the API takes."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str, name: str) -> Any:
    """The content of a YAML (or JSON) text.

    Raises:
        UsageError: it is no YAML; the message names line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader's subclass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"{name}{where}: {error.problem or error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: {' '.join(str(error).split())}") from None


class Project(NamedTuple):
    """What a folder holds."""

    manifests: list[Object]
    """Functions first, in the order of the file."""
    archives: dict[str, bytes]
    """What `code.zip` of functions names by its key, and is made of a folder."""
    folders: dict[str, Path]
    """Where the code of functions lies, by their names, as far as it lies in folders."""


def load(folder: Path) -> Project:
    """Read and check wisp.yaml and the code.

    Raises:
        UsageError: something is wrong with wisp.yaml or the code; the message names the path.
    """
    path = folder / FILE
    try:
        document = read_yaml(path.read_text(), str(path))
    except FileNotFoundError:
        raise UsageError(absent(folder)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {_reason(error)}") from None
    if not isinstance(document, dict) or not document:
        raise UsageError(f"{path}: write functions: and subscriptions:, each with specs by name")
    if unknown := sorted(str(key) for key in document.keys() - _SECTIONS.keys()):
        raise UsageError(f"{path}: {unknown[0]}: there is no such section; write functions: and subscriptions:")
    archives: dict[str, bytes] = {}
    functions = _entries(document, "functions", path)
    manifests = [
        _manifest(folder, section, str(name), spec, archives)
        for section in _SECTIONS
        for name, spec in _entries(document, section, path).items()
    ]
    folders = {
        str(name): folder / str(spec["code"]["folder"]) for name, spec in functions.items() if "folder" in spec["code"]
    }
    return Project(manifests, archives, folders)


def absent(folder: Path) -> str:
    """What to do where there is no wisp.yaml: for code that is there already, what to write into it."""
    told = f"there is no {folder / FILE}, which says what runs: `wisp init DIR` writes a function to start from"
    name = name_for(folder)
    for file, spec in _FOUND.items():
        if (folder / file).is_file():
            return f"{told}; for this {file} write into it: functions: {{{name}: {spec.replace('NAME', name)}}}"
    return told


_FOUND: Final = {
    "Dockerfile": '{runtime: container, code: {image: "registry.example/NAME:1"}}',
    "app.py": "{runtime: python3.13, handler: app.handler, code: {folder: .}}",
    "app.mjs": "{runtime: nodejs24, handler: app.handler, code: {folder: .}}",
    "app.js": "{runtime: nodejs24, handler: app.handler, code: {folder: .}}",
    "bootstrap": "{runtime: provided, code: {folder: .}}",
}


def place(manifest: Object, field: str) -> str:
    """Where in wisp.yaml a field of an object stands: `functions.hello.scale.min` for `spec.scale.min`."""
    _, _, rest = field.partition("spec")
    return f"{_SECTION_OF[manifest['kind']]}.{manifest['metadata']['name']}{rest}"


def _entries(document: Mapping[str, Any], section: str, path: Path) -> Mapping[str, Any]:
    entries = document.get(section) or {}
    if not isinstance(entries, dict):
        raise UsageError(f"{path}: {section}: write a mapping of names to specs")
    return entries


def _manifest(folder: Path, section: str, name: str, spec: Any, archives: dict[str, bytes]) -> Object:
    kind, struct = _SECTIONS[section]
    where = f"{FILE}: {section}.{name}"
    if not isinstance(spec, dict):
        raise UsageError(f"{where}: write a spec, as `wisp init` does")
    if kind == "Function":
        spec, archive = _with_code(folder, name, spec, where)
        archives |= archive
    check(struct, spec, where)
    if spec.get("filter"):
        _check_filter(spec["filter"], where)
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _check_filter(wanted: Mapping[str, Any], where: str) -> None:
    try:
        pattern.compile(wanted)
    except pattern.PatternError as error:
        raise UsageError(f"{where}.filter: {error}") from None


def _with_code(folder: Path, name: str, spec: Mapping[str, Any], where: str) -> tuple[Object, dict[str, bytes]]:
    """The spec with `code.folder` turned into `code.files`, or into `code.zip` with the archive by its key."""
    code = spec.get("code")
    if not isinstance(code, dict) or "folder" not in code:
        return dict(spec), {}
    if code.keys() - {"folder", "zip"}:
        raise UsageError(f"{where}.code: write exactly one kind of code: folder, files, zip or image")
    source = folder / str(code["folder"])
    spec = _with_requirements(source, spec)
    if "zip" not in code:
        return {**spec, "code": {"files": _read_folder(source, f"{where}.code.folder")}}, {}
    zipped = code["zip"]
    if not isinstance(zipped, dict) or zipped.keys() != {"bucket", "connection"}:
        told = "beside folder write {bucket: ..., connection: {name: ...}}; the content says the rest"
        raise UsageError(f"{where}.code.zip: {told}")
    data = pack(source, f"{where}.code.folder")
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"{name}/{sha256}.zip"
    return {**spec, "code": {"zip": {**zipped, "key": key, "sha256": sha256}}}, {key: data}


def _with_requirements(source: Path, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec with what the folder's requirements.txt lists, unless it says itself which packages it needs, or [] for none."""
    if spec.get("requirements") == []:
        return {field: value for field, value in spec.items() if field != "requirements"}
    if "requirements" in spec or not str(spec.get("runtime")).startswith("python"):
        return spec
    listed = requirements.read(source)
    return {**spec, "requirements": listed} if listed else spec


def _read_folder(folder: Path, where: str) -> dict[str, str]:
    """The text files of a folder by name.

    Raises:
        UsageError: it holds what `code.files` can't carry.
    """
    if not folder.is_dir():
        raise UsageError(f"{where}: there is no folder {folder}")
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.is_dir():
            raise UsageError(f"{where}: {path} is a folder, and files are sent from one folder only: {_USE_ZIP}")
        try:
            files[path.name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{where}: {path} can't be sent as text ({_reason(error)}): {_USE_ZIP}") from None
    if not files:
        raise UsageError(f"{where}: {folder} holds no code")
    size = sum(len(text.encode()) for text in files.values())
    if size > CODE_BYTES:
        told = f"{folder} holds {size / 1024:.0f} KiB, and code in files may be {CODE_BYTES // 1024} KiB in all"
        raise UsageError(f"{where}: {told}: {_USE_ZIP}")
    return files


_USE_ZIP: Final = "write code: {folder: ..., zip: {bucket: ..., connection: {name: ...}}}, and it is sent as a zip through an S3 bucket"


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"

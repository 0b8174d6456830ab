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
A folder with a Dockerfile is an image's, which deploying builds and pushes: `code: {folder: ., image: registry.example/hello}`; without
`image` it goes to the registry that the command was given, and without wisp.yaml it is one function.
A folder of a few text files goes as `code.files`; one that has folders, other bytes or more than 192 KiB goes as an archive to the platform's
code store, `code.stored`, or through a bucket of your own: `code: {folder: function, zip: {bucket: code, connection: {name: my-s3}}}`.

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
from wisp_api.function import CODE_BYTES, CONTAINER, FILE_NAME, FILES, FunctionSpec
from wisp_api.subscription import SubscriptionSpec

from wisp import image, requirements
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
    """Made of folders: what `code.stored` of functions names by its SHA-256, and `code.zip` by its key."""
    folders: dict[str, Path]
    """Where the code of functions lies, by their names, as far as it lies in folders."""
    images: dict[str, image.Image]
    """What functions run that is still to be built, by their names."""


def load(folder: Path, registry: str = "") -> Project:
    """Read and check wisp.yaml and the code; `registry` is where images go whose place wisp.yaml does not say.

    Raises:
        UsageError: something is wrong with wisp.yaml or the code; the message names the path.
    """
    path = folder / FILE
    document = _read(folder, path, registry)
    if not isinstance(document, dict) or not document:
        raise UsageError(f"{path}: write functions: and subscriptions:, each with specs by name")
    if unknown := sorted(str(key) for key in document.keys() - _SECTIONS.keys()):
        raise UsageError(f"{path}: {unknown[0]}: there is no such section; write functions: and subscriptions:")
    archives: dict[str, bytes] = {}
    entries = {section: _entries(document, section, path) for section in _SECTIONS}
    functions = entries["functions"]
    planned = {name: image.planned(folder, name, spec, registry) for name, spec in functions.items()}
    images = {name: plan for name, plan in planned.items() if plan}
    built = {name: {**functions[name], "code": {"image": plan.name or name}} for name, plan in images.items()}
    entries["functions"] = functions | built
    manifests = [
        _manifest(folder, section, name, spec, archives)
        for section, specs in entries.items()
        for name, spec in specs.items()
    ]
    folders = {
        name: folder / str(spec["code"]["folder"])
        for name, spec in functions.items()
        if "folder" in spec["code"] and not (name in images and spec["runtime"] == CONTAINER)
    }
    return Project(manifests, archives, folders, images)


def _read(folder: Path, path: Path, registry: str) -> Any:
    """What wisp.yaml holds, or would hold for a Dockerfile whose image has a place to go."""
    try:
        return read_yaml(path.read_text(), str(path))
    except FileNotFoundError:
        file = image.find(folder) if registry else None
        if file is None:
            raise UsageError(absent(folder)) from None
        return image.assumed(file, name_for(folder))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read: {_reason(error)}") from None


def absent(folder: Path) -> str:
    """What to do where there is no wisp.yaml: for code that is there already, what to write into it."""
    told = f"there is no {folder / FILE}, which says what runs: `wisp init DIR` writes a function to start from"
    name = name_for(folder)
    for file, spec in _FOUND.items():
        if (folder / file).is_file():
            other = "say where its image goes (--registry), or " if file in image.FILES else ""
            return f"{told}; for this {file} {other}write into it: functions: {{{name}: {spec.replace('NAME', name)}}}"
    return told


_FOUND: Final = {
    **dict.fromkeys(image.FILES, "{runtime: container, code: {folder: ., image: registry.example/NAME}}"),
    "app.py": "{runtime: python3.13, handler: app.handler, code: {folder: .}}",
    "app.mjs": "{runtime: nodejs24, handler: app.handler, code: {folder: .}}",
    "app.js": "{runtime: nodejs24, handler: app.handler, code: {folder: .}}",
    "bootstrap": "{runtime: provided, code: {folder: .}}",
}


def place(manifest: Object, field: str) -> str:
    """Where in wisp.yaml a field of an object stands: `functions.hello.scale.min` for `spec.scale.min`."""
    _, _, rest = field.partition("spec")
    return f"{_SECTION_OF[manifest['kind']]}.{manifest['metadata']['name']}{rest}"


def _entries(document: Mapping[str, Any], section: str, path: Path) -> dict[str, Any]:
    entries = document.get(section) or {}
    if not isinstance(entries, dict):
        raise UsageError(f"{path}: {section}: write a mapping of names to specs")
    return {str(name): spec for name, spec in entries.items()}


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
    """The spec with `code.folder` turned into `code.files`, or into `code.stored` or `code.zip` with the archive by what it is named by."""
    code = spec.get("code")
    if not isinstance(code, dict) or "folder" not in code:
        return dict(spec), {}
    if code.keys() - {"folder", "zip"}:
        raise UsageError(f"{where}.code: write exactly one kind of code: folder, files, stored, zip or image")
    source = folder / str(code["folder"])
    spec = _with_requirements(source, spec)
    zipped = code.get("zip")
    if "zip" not in code and (files := _read_folder(source, f"{where}.code.folder")):
        return {**spec, "code": {"files": files}}, {}
    if "zip" in code and (not isinstance(zipped, dict) or zipped.keys() != {"bucket", "connection"}):
        told = "beside folder write {bucket: ..., connection: {name: ...}}; the content says the rest"
        raise UsageError(f"{where}.code.zip: {told}")
    data = pack(source, f"{where}.code.folder")
    sha256 = hashlib.sha256(data).hexdigest()
    if not zipped:
        return {**spec, "code": {"stored": {"sha256": sha256}}}, {sha256: data}
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


def _read_folder(folder: Path, where: str) -> dict[str, str] | None:
    """The text files of a folder by name; None where it holds what `code.files` can't carry.

    Raises:
        UsageError: there is no such folder, it can't be read, or a link leads out of it, as no archive's may.
    """
    if not folder.is_dir():
        raise UsageError(f"{where}: there is no folder {folder}")
    found = [path for path in sorted(folder.iterdir()) if not _is_left_out(path)]
    if not found:
        raise UsageError(f"{where}: {folder} holds no code")
    for path in found:  # what is followed here would be read with the rights of who deploys, and stand in the manifest
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"{where}: {path} is a link that leads out of the folder: put what the function needs in there"
            )
    if len(found) > FILES or not all(path.is_file() and FILE_NAME.fullmatch(path.name) for path in found):
        return None
    try:
        if sum(path.stat().st_size for path in found) > CODE_BYTES:
            return None
        return {path.name: path.read_bytes().decode() for path in found}
    except UnicodeDecodeError:
        return None
    except OSError as error:
        raise UsageError(f"{where}: {error.filename} can't be read: {_reason(error)}") from None


def _is_left_out(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__pycache__" or path.suffix == ".pyc"


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"

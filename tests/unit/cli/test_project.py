"""wisp.yaml and the code beside it: what is sent, and how a mistake is named."""

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fixtures.cli import HELLO, write_project
from wisp import project
from wisp.errors import UsageError
from wisp_api.function import CODE_BYTES
from wisp_runtime import archive

SUBSCRIPTION = """
subscriptions:
  on-row:
    function: {name: hello}
    source:
      postgres: {connection: {name: shop-db}, tables: [public.orders]}
"""


def load(folder: Path, text: str) -> list[dict[str, Any]]:
    """The manifests of a folder with this wisp.yaml."""
    return project.load(Path(write_project(folder, text))).manifests


def mistake(folder: Path, text: str = HELLO) -> str:
    """What is said of a wrong project."""
    with pytest.raises(UsageError) as error:
        load(folder, text)
    return str(error.value)


def test_functions_come_before_subscriptions(tmp_path: Path) -> None:
    """Both kinds of one file become manifests, whatever their order, and other kinds of code stay as they are."""
    image = "functions:\n  other: {runtime: container, code: {image: registry.example/other:1}}\n"
    hello, row = load(tmp_path, SUBSCRIPTION + HELLO)
    (other,) = load(tmp_path, image)
    assert (hello["kind"], hello["metadata"], row["kind"]) == ("Function", {"name": "hello"}, "Subscription")
    assert list(hello["spec"]["code"]["files"]) == ["app.py"]
    assert other["spec"]["code"] == {"image": "registry.example/other:1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{HELLO}    timeoutSecond: 3\n",
            "functions.hello.timeoutSecond: there is no such field; did you mean timeoutSeconds?",
        ),
        (f"{HELLO}    scale: {{min: few}}\n", "functions.hello.scale.min: Expected `int`, got `str`"),
        (
            f"{HELLO}    scale: {{most: 3}}\n",
            "functions.hello.scale.most: there is no such field; the fields are min, max",
        ),
        (HELLO.replace("python3.13", "cobol"), "functions.hello.runtime: Invalid enum value 'cobol'; write one of "),
        (f"{HELLO}    env: [{{nam: A}}]\n", "functions.hello.env[0].nam: there is no such field; did you mean name?"),
        (HELLO.replace("    runtime: python3.13\n", ""), "functions.hello: Object missing required field `runtime`"),
        (HELLO.replace("folder: function", "folder: lost"), "functions.hello.code.folder: there is no folder"),
        (HELLO.replace("folder: function", "folder: function, files: {}"), "write exactly one kind of code"),
        (HELLO.replace("folder: function", "folder: function, image: x"), "there is no Dockerfile in"),
        (HELLO.replace("folder: function", "folder: function, zip: {key: x}"), "the content says the rest"),
        (f"{SUBSCRIPTION}    filter: {{data: {{op: insert}}}}\n", 'subscriptions.on-row.filter: data.op: is "insert"'),
        (SUBSCRIPTION.replace("[public.orders]", "orders"), "source.postgres.tables: Expected `array`, got `str`"),
        ("function: {}\n", "function: there is no such section; write functions: and subscriptions:"),
        ("functions: [hello]\n", "functions: write a mapping of names to specs"),
        ("functions: {hello: }\n", "functions.hello: write a spec"),
        ("functions: {\n", "line 2, column 1"),
        ("", "write functions: and subscriptions:"),
    ],
)
def test_a_mistake_is_named_by_its_path(tmp_path: Path, text: str, said: str) -> None:
    """Each wrong thing is refused with its path in wisp.yaml and what to write."""
    assert said in mistake(tmp_path, text)


def test_a_few_text_files_are_written_into_the_spec(tmp_path: Path) -> None:
    """Without caches and hidden files."""
    code = tmp_path / "function"
    for name in ("__pycache__", ".git"):
        (code / name).mkdir(parents=True)
    (code / "half.txt").write_text("x" * (CODE_BYTES // 2))
    (hello,), archives, *_ = project.load(Path(write_project(tmp_path, HELLO)))
    assert (sorted(hello["spec"]["code"]["files"]), archives) == (["app.py", "half.txt"], {})


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    """What it points to would be read with the rights of who deploys, and stand in the manifest; within the folder a link is followed."""
    folder = write_project(tmp_path, HELLO)
    (tmp_path / "key").write_text("secret")
    (tmp_path / "function/same.py").symlink_to("app.py")
    (hello,), *_ = project.load(Path(folder))
    assert sorted(hello["spec"]["code"]["files"]) == ["app.py", "same.py"]
    (tmp_path / "function/key").symlink_to("../key")
    with pytest.raises(
        UsageError, match=r"functions\.hello\.code\.folder: .*/key is a link that leads out of the folder"
    ):
        project.load(Path(folder))


@pytest.mark.parametrize(
    "files",
    [
        {"more.txt": b"x" * CODE_BYTES},
        {"more.txt": b"\xff\xfe"},
        {"node_modules/b/package.json": b"{}"},
        {"a name.txt": b""},
        {f"{number}.txt": b"" for number in range(64)},
    ],
)
def test_what_does_not_fit_into_the_spec_is_an_archive(tmp_path: Path, files: dict[str, bytes]) -> None:
    """Too much, folders, bytes that are no text, names and numbers of files that no ConfigMap takes: for the store, named by its content."""
    for name, content in files.items():
        path = tmp_path / "function" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (hello,), archives, *_ = project.load(Path(write_project(tmp_path, HELLO)))
    ((sha256, data),) = archives.items()
    assert hashlib.sha256(data).hexdigest() == sha256
    assert hello["spec"]["code"] == {"stored": {"sha256": sha256}}
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        assert {name: packed.read(name) for name in files} == files
        assert "app.py" in packed.namelist()


def test_a_folder_as_a_zip(tmp_path: Path) -> None:
    """Folders, bytes, links and executables go as a zip that the runtime takes; it is the same whenever it is made, and named by its content."""
    code = tmp_path / "function"
    (code / "pkg/__pycache__").mkdir(parents=True)
    (code / ".env").write_text("SECRET=1")
    (code / "pkg/.libs").mkdir()
    contents = {"pkg/data.bin": b"\xff", "pkg/.libs/x.so.1": b"x", "pkg/__pycache__/a.pyc": b"", "tool": b"#!/bin/sh"}
    for name, content in contents.items():
        (code / name).write_bytes(content)
    (code / "tool").chmod(0o700)
    (code / "x.so").symlink_to("pkg/.libs/x.so.1")
    text = HELLO.replace("folder: function", "folder: function, zip: {bucket: code, connection: {name: my-s3}}")
    (hello,), archives, *_ = project.load(Path(write_project(tmp_path, text)))
    ((key, data),) = archives.items()
    sha256 = hashlib.sha256(data).hexdigest()
    zipped = {"bucket": "code", "connection": {"name": "my-s3"}, "key": f"hello/{sha256}.zip", "sha256": sha256}
    assert (hello["spec"]["code"], key) == ({"zip": zipped}, zipped["key"])
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    archive.unpack(io.BytesIO(data), str(unpacked))
    found = sorted(path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if not path.is_dir())
    assert found == ["app.py", "pkg/.libs/x.so.1", "pkg/data.bin", "tool", "x.so"]
    assert ((unpacked / "x.so").read_bytes(), os.access(unpacked / "tool", os.X_OK)) == (b"x", True)
    os.utime(code / "tool", (1, 1))
    assert project.load(tmp_path).archives == archives
    (code / "tool").write_bytes(b"other")
    assert project.load(tmp_path).archives.keys() != archives.keys()


def test_a_folder_without_wisp_yaml(tmp_path: Path) -> None:
    """The way to a first one is named."""
    with pytest.raises(UsageError, match="`wisp init DIR` writes"):
        project.load(tmp_path)

"""Packing a layer: the same files are the same bytes, and nothing but files of the folder goes into it."""

import io
import os
import zipfile
from pathlib import Path

import pytest
from wisp_events.code import build
from wisp_events.code.resolver import read_index
from wisp_events.sources.reader import Trouble
from wisp_runtime import archive


def packed(folder: Path) -> bytes:
    """The archive of a folder."""
    file = io.BytesIO()
    build.pack(folder, file)
    return file.getvalue()


def make(folder: Path, names: list[str]) -> Path:
    """A folder of files, of which those in bin are programs."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
        (folder / name).chmod(0o755 if name.startswith("bin/") else 0o600)
    return folder


def test_same_files_are_the_same_bytes(tmp_path: Path) -> None:
    """Neither the order of writing nor time, owner and place count."""
    names = ["b/x.py", "a.py", "bin/tool", "b/a/y.py"]
    first, second = make(tmp_path / "1", names), make(tmp_path / "2", names[::-1])
    os.utime(second / "a.py", (0, 0))
    assert packed(first) == packed(second)


def test_archive_keeps_the_rules(tmp_path: Path) -> None:
    """Its files lie below python/, readable, programs executable; links and the installer's lock stay out."""
    folder = make(tmp_path, ["a.py", "bin/tool", ".lock"])
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "folder").symlink_to("/etc")
    file = io.BytesIO(packed(folder))
    assert archive.check(file) == len("a.py") + len("bin/tool")
    found = {info.filename: info.external_attr >> 16 & 0o777 for info in zipfile.ZipFile(file).infolist()}
    assert found == {"python/a.py": 0o644, "python/bin/tool": 0o755}


def test_too_much_is_refused(tmp_path: Path) -> None:
    """Packages beyond the limit are no layer, and are not packed to the end."""
    with (make(tmp_path, ["a.py"]) / "large.so").open("wb") as file:
        file.truncate((250 << 20) + 1)
    with pytest.raises(Trouble) as raised:
        packed(tmp_path)
    assert raised.value.reason == "CodeTooLarge"


def test_wrong_address_names_who_wrote_it(tmp_path: Path) -> None:
    """An index without an address is told with the place where it stands."""
    with pytest.raises(Trouble, match="chart value packageIndex"):
        read_index("pypi.org", "wisp-package-index", tmp_path)
    (tmp_path / "url").write_text("--index-url=x")
    with pytest.raises(Trouble, match="key url of Secret wisp-package-index"):
        read_index("https://pypi.org/simple", "wisp-package-index", tmp_path)

"""A code archive, whatever its bytes are, makes nothing outside its folder and no more than the limits: evil zips made here, and thousands of random ones."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wisp_runtime import archive
from wisp_runtime.archive import ArchiveError

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
File = tuple[str, int, bytes]
REGULAR, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


def make(*files: File, packed: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    """An archive of (name, mode, content), the name as it is given."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", packed) as out:
        for name, mode, content in files:
            info = zipfile.ZipInfo("x", (2026, 1, 2, 3, 4, 6))
            info.filename = info.orig_filename = name
            info.compress_type = packed
            info.create_system = 3
            info.external_attr = mode << 16
            out.writestr(info, content)
    return made


def refused(data: io.BytesIO, folder: Path) -> ArchiveError:
    """The error of an archive that must be refused by the verifier and by the pod alike, with nothing made."""
    with pytest.raises(ArchiveError) as first:
        archive.check(data)
    with pytest.raises(ArchiveError) as second:
        archive.unpack(data, str(folder))
    assert first.value.reason == second.value.reason
    return first.value


@pytest.mark.parametrize(
    ("what", "files"),
    [
        ("up", [("../evil", REGULAR, b"")]),
        ("up, later", [("a/../../evil", REGULAR, b"")]),
        ("absolute", [("/etc/evil", REGULAR, b"")]),
        ("Windows' drive", [("C:evil", REGULAR, b"")]),
        ("backslash", [("a\\..\\evil", REGULAR, b"")]),
        ("line break", [("a\nb", REGULAR, b"")]),
        ("too long", [("a" * 300, REGULAR, b"")]),
        ("too deep", [("a/" * 600 + "b", REGULAR, b"")]),
        ("device", [("dev", stat.S_IFCHR | 0o666, b"")]),
        ("block device", [("dev", stat.S_IFBLK | 0o666, b"")]),
        ("pipe", [("pipe", stat.S_IFIFO | 0o666, b"")]),
        ("socket", [("sock", stat.S_IFSOCK | 0o666, b"")]),
        ("twice", [("a", REGULAR, b"1"), ("./a", REGULAR, b"2")]),
        ("below a file", [("a", REGULAR, b""), ("a/b", REGULAR, b"")]),
        ("below a link", [("a", LINK, b"b"), ("a/evil", REGULAR, b"")]),
        ("link to root", [("a", LINK, b"/")]),
        ("link up", [("a", LINK, b"..")]),
        ("link up from a folder", [("d/a", LINK, b"../..")]),
        ("link that climbs from another's end", [("a/b/s", LINK, b"../.."), ("e", LINK, b"a/b/s/../x")]),
        ("link without target", [("a", LINK, b"")]),
        ("long link", [("a", LINK, b"b/" * 2000)]),
        ("folder by name, file by mode", [("a/", REGULAR, b"")]),
    ],
)
def test_what_leads_out_is_refused(tmp_path: Path, what: str, files: list[File]) -> None:
    """No name and no link leaves the folder, nothing but files, folders and links is made, and a refusal makes nothing at all."""
    assert refused(make(("app.py", REGULAR, b""), *files), tmp_path).reason == "UnsafeArchive", what
    assert list(tmp_path.iterdir()) == []


def test_name_with_nul_is_refused(tmp_path: Path) -> None:
    """Python cuts a name at NUL; the archive's own name counts."""
    data = make(("app.pyXevil", REGULAR, b"")).getvalue().replace(b"app.pyX", b"app.py\0")
    assert refused(io.BytesIO(data), tmp_path).reason in {"UnsafeArchive", "InvalidArchive"}


def test_bomb_is_refused_by_its_ratio(tmp_path: Path) -> None:
    """Much from little is no code, even below the size limit."""
    assert refused(make(("zeros", REGULAR, bytes(100 * MIB))), tmp_path).reason == "UnsafeArchive"


def test_bomb_that_lies_about_its_size_is_stopped(tmp_path: Path) -> None:
    """What an entry says of its size is no more than a claim: inflating stops as soon as it is passed."""
    data = make(("zeros", REGULAR, bytes(20 * MIB))).getvalue()
    size, small = struct.pack("<L", 20 * MIB), struct.pack("<L", 10)
    assert data.count(size) >= 1
    with pytest.raises(ArchiveError) as error:
        archive.unpack(io.BytesIO(data.replace(size, small)), str(tmp_path))
    assert error.value.reason == "UnsafeArchive"
    assert (tmp_path / "zeros").stat().st_size < MIB


def test_too_much_and_too_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits are those of the whole archive, and the message says the limit."""
    noise = os.urandom(1 << 14) * 64
    with pytest.raises(ArchiveError) as error:
        archive.check(make(*((str(number), REGULAR, noise) for number in range(5))), most=4 * MIB)
    assert error.value.reason == "CodeTooLarge"
    assert "limit is 4 MiB" in str(error.value)
    monkeypatch.setattr(archive, "ENTRIES", 3)
    assert refused(make(*((str(number), REGULAR, b"") for number in range(4))), tmp_path).reason == "CodeTooLarge"


def test_overlapping_entries_stay_within_the_limits(tmp_path: Path) -> None:
    """A table of contents that names one entry's bytes many times makes no more than it claims."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a", bytes(40 * MIB))
        (first,) = out.infolist()
        for number in range(20):
            again = zipfile.ZipInfo(str(number))
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(again, field, getattr(first, field))
            out.filelist.append(again)
    assert refused(made, tmp_path).reason == "CodeTooLarge"


def test_bytes_that_lie_over_one_another_are_inflated_once(tmp_path: Path) -> None:
    """A thousand entries that share packed bytes would cost a thousand times their inflating, however little comes of it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a", os.urandom(1000))
        (first,) = out.infolist()
        for number in range(1000):
            again = zipfile.ZipInfo(str(number))
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(again, field, getattr(first, field))
            out.filelist.append(again)
    assert refused(made, tmp_path).reason == "UnsafeArchive"


def test_folders_that_names_imply_count(tmp_path: Path) -> None:
    """Few long names can't make more folders than there may be files."""
    deep = [(f"{number}/" + "a/" * 500 + "x", REGULAR, b"") for number in range(130)]
    assert refused(make(*deep), tmp_path).reason == "CodeTooLarge"


def test_table_of_contents_is_bounded_before_it_is_parsed(tmp_path: Path) -> None:
    """Neither its size nor its number of lines is believed to be reasonable: each line costs many times its bytes."""
    lines = make(*((str(number), REGULAR, b"") for number in range(archive.ENTRIES + 1)), packed=zipfile.ZIP_STORED)
    assert "more than 60000 files" in str(refused(lines, tmp_path))
    data = bytearray(make(("a", REGULAR, b"")).getvalue())
    end = data.index(b"PK\5\6")
    table = data.index(b"PK\1\2")
    large = bytearray(data[:table] + bytes(archive.TABLE_BYTES) + data[table:])
    struct.pack_into("<L", large, end + archive.TABLE_BYTES + 12, archive.TABLE_BYTES + end - table)
    assert "table of contents takes" in str(refused(io.BytesIO(large), tmp_path))


@pytest.mark.parametrize("more", [0, 1, 2, 5, 100, 258])
def test_sizes_about_the_pieces_that_are_inflated(tmp_path: Path, more: int) -> None:
    """What zlib holds back at the end of a piece is part of the file."""
    for content in (bytes(MIB + more), (b"ab" * MIB)[: 2 * MIB + more]):
        archive.unpack(make(("a", REGULAR, content)), str(tmp_path))
        assert (tmp_path / "a").read_bytes() == content


def test_modes_times_and_links_are_kept(tmp_path: Path) -> None:
    """Executables stay executable, set-user-ID is dropped, times are the archive's, links inside work, and nothing stays writable."""
    data = make(
        ("bin/tool", stat.S_IFREG | 0o4755, b"#!/bin/sh"),
        ("lib/x.so.1", REGULAR, b"x"),
        ("lib/x.so", LINK, b"x.so.1"),
        ("deep/er/up", LINK, b"../../lib/x.so"),
        ("empty/", stat.S_IFDIR | 0o755, b""),
    )
    archive.unpack(data, str(tmp_path))
    archive.seal(str(tmp_path))
    assert stat.S_IMODE((tmp_path / "bin/tool").stat().st_mode) == 0o555
    assert stat.S_IMODE((tmp_path / "lib").stat().st_mode) == 0o555
    assert (tmp_path / "bin/tool").stat().st_mtime == 1767323046
    assert (tmp_path / "deep/er/up").read_bytes() == b"x"
    assert (tmp_path / "empty").is_dir()
    archive.clear(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_archive_without_modes_is_executable(tmp_path: Path) -> None:
    """An archive made on Windows has no modes: its bootstrap runs all the same."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as out:
        info = zipfile.ZipInfo("bootstrap")
        info.create_system = info.external_attr = 0
        out.writestr(info, b"#!/bin/sh")
    archive.unpack(made, str(tmp_path))
    assert os.access(tmp_path / "bootstrap", os.X_OK)


def test_later_layer_replaces_but_not_through_a_link(tmp_path: Path) -> None:
    """A later layer's file takes the place of an earlier one's, a link's too; a folder where a link stands is refused."""
    archive.unpack(make(("a", REGULAR, b"1"), ("l", LINK, b"a"), ("d/x", REGULAR, b"")), str(tmp_path))
    archive.unpack(make(("a", REGULAR, b"2"), ("l", REGULAR, b"file")), str(tmp_path))
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "l").read_bytes()) == (b"2", b"file")
    archive.unpack(make(("link", LINK, b"d")), str(tmp_path))
    with pytest.raises(ArchiveError):
        archive.unpack(make(("link/deep/l", LINK, b"../../x")), str(tmp_path))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "encrypted"])
def test_damaged_is_invalid(tmp_path: Path, damage: str) -> None:
    """What can't be read is said to be so; a checksum is looked at."""
    data = bytearray(make(("app.py", REGULAR, os.urandom(1000)), packed=zipfile.ZIP_STORED).getvalue())
    if damage == "flipped":
        data[200] ^= 1
    elif damage == "encrypted":
        at = data.index(b"PK\1\2")
        data[at + 8] |= 1
    broken = {"truncated": bytes(data[:-30]), "empty": b"", "text": b"hello"}.get(damage, bytes(data))
    assert refused(io.BytesIO(broken), tmp_path).reason == "InvalidArchive"


def leads_nowhere(path: Path) -> bool:
    """Whether a link leads round in a circle."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


names = st.lists(st.sampled_from(["a", "b", "..", ".", "", "c\0", "lib", "x y", "é"]), min_size=1, max_size=4).map(
    "/".join
)
entries = st.tuples(
    names,
    st.sampled_from([REGULAR, LINK, stat.S_IFDIR | 0o755, 0, stat.S_IFIFO]),
    st.binary(max_size=20) | names.map(str.encode),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(files=st.lists(entries, max_size=5), flips=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_is_ever_made_outside(tmp_path_factory: Any, files: list[File], flips: list[tuple[int, int]]) -> None:
    """Of any archive, whole or with bytes changed, what the folder holds afterwards resolves to places inside it; errors are ours."""
    base = tmp_path_factory.mktemp("archive")
    inside = base / "inside"
    inside.mkdir()
    data = bytearray(make(*files).getvalue())
    for place, value in flips:
        data[place % len(data)] = value
    with contextlib.suppress(ArchiveError, OSError):  # OSError: the file system's own refusal
        archive.unpack(io.BytesIO(bytes(data)), str(inside))
    assert [path.name for path in base.iterdir()] == ["inside"]
    for path in inside.rglob("*"):
        if leads_nowhere(path):
            continue
        real = os.path.realpath(path)
        assert real == str(inside) or real.startswith(f"{inside}/"), path

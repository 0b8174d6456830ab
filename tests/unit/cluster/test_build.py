"""What decides whether a program is built again, and that nothing half-built is ever taken for one."""

from pathlib import Path

import pytest
from wisp_cluster import build
from wisp_cluster.paths import cluster_dir
from wisp_cluster.progress import ClusterError


def key(folder: Path, flags: str = "-X a=b", go: str = "go1.26.0", machine: str = "x86_64") -> str:
    """The key of a module folder under defaults that a test varies one by one."""
    return build.module_key(folder, flags=flags, go_version=go, machine=machine)


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A Go module of two files."""
    (tmp_path / "go.mod").write_text("module m\n")
    (tmp_path / "go.sum").write_text("")
    return tmp_path


def test_key_is_stable(module: Path) -> None:
    """The same module, flags, compiler and platform give the same key: a program is built once."""
    assert key(module) == key(module)


def test_key_covers_everything_that_changes_the_program(module: Path) -> None:
    """Flags, compiler, platform, a file's bytes and a file's name each lead to another place in the cache."""
    keys = {key(module), key(module, flags=""), key(module, go="go1.26.1"), key(module, machine="aarch64")}
    (module / "go.sum").write_text("x")
    keys.add(key(module))
    (module / "go.sum").rename(module / "go.summ")
    keys.add(key(module))
    assert len(keys) == 6


def test_key_tells_where_one_file_ends_and_the_next_begins(tmp_path: Path) -> None:
    """Moving bytes from one file to the next is a change."""
    first, second = tmp_path / "1", tmp_path / "2"
    for folder, (left, right) in {first: ("ab", "c"), second: ("a", "bc")}.items():
        folder.mkdir()
        (folder / "x").write_text(left)
        (folder / "y").write_text(right)
    assert key(first) != key(second)


def test_every_program_has_its_pinned_module() -> None:
    """Each program's module folder holds a go.mod, and a go.sum unless it has no dependency."""
    for program in build.PROGRAMS.values():
        folder = cluster_dir() / "go" / program.module
        assert (folder / "go.mod").exists(), program.name
        assert (folder / "go.sum").exists() or "require" not in (folder / "go.mod").read_text(), program.name


def test_versions_said_are_versions_built() -> None:
    """The versions that programs report are those that their go.mod pins."""
    pinned = {
        "kubernetes": f"k8s.io/kubernetes {build.KUBERNETES}",
        "containerd": f"github.com/containerd/containerd/v2 {build.CONTAINERD}",
        "traefik": f"github.com/traefik/traefik/v3 {build.TRAEFIK}",
    }
    for module, line in pinned.items():
        assert line in (cluster_dir() / "go" / module / "go.mod").read_text()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone, and a `cluster/go` with one small module in it."""
    monkeypatch.setenv("WISP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "go" / "small"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module small\n\ngo 1.21\n")
    (folder / "main.go").write_text("package main\n\nfunc main() {}\n")
    build.binary_path(build.PROGRAMS["etcd"])  # asks Go for its version, in a folder that is out of reach below
    monkeypatch.setattr(build, "cluster_dir", lambda: tmp_path)
    monkeypatch.setitem(build.PROGRAMS, "small", build.Program("small", "small", "."))
    return tmp_path


def test_program_is_built_once_and_linked(own_cache: Path) -> None:
    """The first call builds, the second finds the same file untouched, and `current/` leads to it."""
    first = build.binary("small")
    before = first.stat()
    build.build(["small"])
    assert build.binary("small").stat() == before
    assert (own_cache / "cache" / "current" / "small").resolve() == first


def test_failed_build_leaves_no_program_and_says_why(own_cache: Path) -> None:
    """A build that fails shows the compiler's words and leaves nothing under the program's name; put right, it builds."""
    source = own_cache / "go" / "small" / "main.go"
    source.write_text("package main\n\nfunc main() { nonsense }\n")
    with pytest.raises(ClusterError) as failure:
        build.build(["small"])
    assert "undefined: nonsense" in failure.value.report()
    assert not build.binary_path(build.PROGRAMS["small"]).exists()
    source.write_text("package main\n\nfunc main() {}\n")
    assert build.binary("small").exists()

"""Builds the cluster's programs from pinned Go modules into the cache, each once.

Every folder of `cluster/go` is a Go module of its own that names the packages as tools, so `go.mod` and `go.sum` pin the whole source. A build's key is
the hash of that folder, the flags, the platform and the Go version.

Invariant: `<cache>/bin/<module>-<key>/<binary>` either is absent or is the finished program, because it is built beside its name and renamed. A killed build
leaves a temporary file that the next one overwrites. Builds are serialised by a lock, so two commands never compile the same thing twice.
"""

import fcntl
import functools
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wisp_cluster.paths import cache_dir, cluster_dir, logs_dir
from wisp_cluster.progress import ClusterError, Steps, run

KUBERNETES = "v1.35.4"
CONTAINERD = "v2.2.1"
TRAEFIK = "v3.7.9"


def _kubernetes_ldflags() -> str:
    """What `kubectl version` and the version check between components report; the module zip has no git to ask."""
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    values = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in values.items())


@dataclass(frozen=True)
class Program:
    """One program to build.

    Attributes:
        name: the file's name in the cache.
        module: the folder under `cluster/go` that pins it.
        package: the Go import path of its main package.
        ldflags: linker flags beside `-s -w`.
    """

    name: str
    module: str
    package: str
    ldflags: str = ""


def _kubernetes(name: str) -> Program:
    return Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _kubernetes_ldflags())


def _containerd(name: str) -> Program:
    package = f"github.com/containerd/containerd/v2/cmd/{name}"
    return Program(name, "containerd", package, f"-X github.com/containerd/containerd/v2/version.Version={CONTAINERD}")


def _knative(name: str) -> Program:
    return Program(f"knative-{name}", "knative", f"knative.dev/serving/cmd/{name}")


PROGRAMS = {
    program.name: program
    for program in (
        Program("minio", "minio", "github.com/minio/minio"),
        Program("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
        _kubernetes("kube-apiserver"),
        _kubernetes("kubectl"),
        Program("helm", "helm", "helm.sh/helm/v3/cmd/helm"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubelet"),
        _kubernetes("kube-proxy"),
        _containerd("containerd"),
        _containerd("containerd-shim-runc-v2"),
        _containerd("ctr"),
        _knative("controller"),
        _knative("webhook"),
        _knative("autoscaler"),
        _knative("activator"),
        _knative("queue"),
        Program("coredns", "coredns", "github.com/coredns/coredns"),
        Program(
            "traefik",
            "traefik",
            "github.com/traefik/traefik/v3/cmd/traefik",
            f"-X github.com/traefik/traefik/v3/pkg/version.Version={TRAEFIK}",
        ),
        Program("pause", "pause", "."),
    )
}

# Manifests that come with the programs: folder in the cache -> (Go module, folder in it). Links in the serving module's own folder
# lead to the other two, and module zips carry no links.
MANIFESTS = {
    "knative": {
        "serving": ("knative.dev/serving", "config/core"),
        "networking": ("knative.dev/networking", "config"),
        "caching": ("knative.dev/caching", "config"),
    }
}


def binary(name: str) -> Path:
    """The finished program `name`, built now if it is not in the cache.

    Raises:
        ClusterError: the build failed, or Go is missing.
        KeyError: no such program.
    """
    path = binary_path(PROGRAMS[name])
    if not path.exists():
        build([name])
    return path


def manifests(module: str) -> Path:
    """The folder with the manifests that the Go module folder `module` pins, copied out of the Go module cache once."""
    target = _module_cache(module, "") / "manifests"
    if not target.exists():
        with _build_lock():
            _copy_manifests(module, target)
    return target


def build(names: Sequence[str] = ()) -> None:
    """Build the named programs (all without names) that the cache lacks, and point `<cache>/current/` at them."""
    wanted = [PROGRAMS[name] for name in (names or PROGRAMS)]
    missing = [program for program in wanted if not binary_path(program).exists()]
    if missing:
        _require_go()
        with _build_lock():
            steps = Steps(len(missing))
            for program in missing:
                with steps.step(f"building {program.name}"):
                    _build_one(program)
    for program in wanted:
        _link_current(program)


def binary_path(program: Program) -> Path:
    """Where the finished program lies, or will."""
    return _module_cache(program.module, program.ldflags) / program.name


def module_key(folder: Path, *, flags: str, go_version: str, machine: str) -> str:
    """The cache key of one Go module: 12 hex digits over its files' names and bytes and all that changes the compiler's output."""
    digest = hashlib.sha256(f"{flags}\0{go_version}\0{machine}\0".encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _module_cache(module: str, ldflags: str) -> Path:
    key = module_key(cluster_dir() / "go" / module, flags=ldflags, go_version=_go_version(), machine=platform.machine())
    return cache_dir() / "bin" / f"{module}-{key}"


@functools.cache
def _go_version() -> str:
    """The compiler's version, asked in a module's folder so that a newer toolchain a go.mod asks for counts."""
    return run(
        ["go", "env", "GOVERSION"],
        cwd=cluster_dir() / "go" / "etcd",
        env=_go_env(),
        what="asking Go for its version",
        hint=_GO_HINT,
    ).strip()


_GO_HINT = "install Go 1.21 or newer (it fetches the toolchain that cluster/go asks for by itself), for example from https://go.dev/dl/"


def _require_go() -> None:
    if shutil.which("go") is None:
        raise ClusterError("Go is not installed, and programs have to be built", hint=_GO_HINT)


def _go_env() -> dict[str, str]:
    """This process's environment, with what would make builds differ between machines fixed."""
    return os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-buildvcs=false -trimpath -mod=readonly"}


def _build_one(program: Program) -> None:
    target = binary_path(program)
    if target.exists():  # another command built it while this one waited for the lock
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    log = logs_dir() / f"build-{program.name}.log"
    log.unlink(missing_ok=True)
    argv: list[str | Path] = [
        "go",
        "build",
        "-ldflags",
        f"-s -w {program.ldflags}".strip(),
        "-o",
        unfinished,
        program.package,
    ]
    run(
        argv,
        cwd=cluster_dir() / "go" / program.module,
        env=_go_env(),
        log=log,
        what=f"building {program.name}",
        hint="if the log speaks of the network or the Go module proxy, check GOPROXY, then run the same command again: it goes on from here",
    )
    unfinished.rename(target)


def _link_current(program: Program) -> None:
    """Point `<cache>/current/<binary>` at the program, replacing an older link in one step."""
    current = cache_dir() / "current"
    current.mkdir(parents=True, exist_ok=True)
    link, target = current / program.name, binary_path(program)
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = current / f".{program.name}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.rename(link)


def _copy_manifests(module: str, target: Path) -> None:
    unfinished = target.with_name(".manifests.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    folder = cluster_dir() / "go" / module
    for name, (path, subfolder) in MANIFESTS[module].items():
        run(
            ["go", "mod", "download", path],
            cwd=folder,
            env=_go_env(),
            what=f"fetching the manifests of {path}",
            hint=_GO_HINT,
        )
        source = run(["go", "list", "-m", "-f", "{{.Dir}}", path], cwd=folder, env=_go_env()).strip()
        shutil.copytree(Path(source) / subfolder, unfinished / name, copy_function=shutil.copyfile)
    unfinished.rename(target)


@contextmanager
def _build_lock() -> Iterator[None]:
    """One build at a time per cache; the kernel drops the lock with the process."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build is running; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield

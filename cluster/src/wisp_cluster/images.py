"""Container images from ordinary Dockerfiles, without a Docker daemon and without a registry.

Invariant: a reference names its content. The tag ends in a hash of everything that went into the image (the staged inputs, the
Dockerfile, the arguments and so the references of the images below it, the base), so the same reference is never two images, a change is
always a new reference, and what is in the cache under a reference needs no second look. Archives are written beside their place and
renamed, so that a killed build leaves none half-written.

The base is bootstrapped from Debian's packages where it can't be pulled. Builds inherit this machine's certificate authorities and
pip settings through read-only mounts, so they work behind a TLS-inspecting proxy; of that, two empty files stay in an image.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from wisp_cluster.build import binary
from wisp_cluster.paths import VERSION, cache_dir, checkout, cluster_dir, logs_dir
from wisp_cluster.progress import ClusterError, Steps, run

REGISTRY = "dev.local"
"""Knative resolves the tags of other names at their registry; this one it leaves alone."""

HOST_CA = Path("/etc/ssl/certs/ca-certificates.crt")
BUILD_CA = "/run/host-ca.crt"
SUITE = "trixie"
HASH_DIGITS = 12
ARCHIVES_KEPT = 3
_IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True)
class Image:
    """One entry of images.yaml, see there."""

    name: str
    context: str = ""
    dockerfile: str = ""
    inputs: Sequence[str] = ()
    program: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    onenode: bool = False

    def stage(self, target: Path) -> None:
        """Copy what the build may see into the folder `target`, the Dockerfile at its root."""
        if self.program:
            shutil.copy(program(self.program), target / "program")
            (target / "Dockerfile").write_text(
                'FROM scratch\nCOPY program /program\nUSER 65532\nENTRYPOINT ["/program"]\n'
            )
            return
        context = checkout() / self.context
        for entry in self.inputs or sorted(path.name for path in context.iterdir() if not path.name.startswith(".")):
            source, place = context / entry, target / entry
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, place, ignore=_IGNORED)
            else:
                shutil.copy(source, place)
        shutil.copy(checkout() / (self.dockerfile or f"{self.context}/Dockerfile"), target / "Dockerfile")


def program(name: str) -> Path:
    """A program that makes up an image: one of ours that Go built, or nats-server from its Python package.

    Raises:
        ClusterError: nats-server is not installed.
    """
    if name != "nats-server":
        return binary(name)
    found = shutil.which(name)
    if not found:
        raise ClusterError(
            "nats-server is not on PATH", hint="run through `uv run`: its Python package is a development dependency"
        )
    return Path(found)


def images() -> tuple[str, list[Image]]:
    """The base's name, and all images in the order of building."""
    listed = yaml.safe_load((cluster_dir() / "images.yaml").read_text())
    return listed["base"], [Image(**entry) for entry in listed["images"]]


def tree_hash(folder: Path, *extra: str) -> str:
    """Hash of the names, executable bits and contents of a folder's files, and of the extra texts."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder)}\0{path.stat().st_mode & 0o100}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    for text in extra:
        total.update(f"\0{text}".encode())
    return total.hexdigest()[:HASH_DIGITS]


@dataclass(frozen=True)
class Builder:
    """What builds images and keeps them.

    Attributes:
        has: whether it holds the image of this reference.
        build: makes it: reference, context folder (its Dockerfile included), build arguments, base image or "".
        onenode: whether it builds the images that only the one-node cluster needs, too.
    """

    has: Callable[[str], bool]
    build: Callable[[str, Path, dict[str, str], str], None]
    onenode: bool = True


def built_images(only: Sequence[str] = (), builder: Builder | None = None) -> dict[str, str]:
    """Build what `builder` (buildah unless given) does not have; return name -> reference of every image (or of `only` and what stands before them).

    Raises:
        ClusterError: a build failed; its log is named.
    """
    builder = builder or Builder(lambda reference: archive(reference).exists(), build)
    base, listed = images()
    wanted = [image for image in listed if builder.onenode or not image.onenode]
    references: dict[str, str] = {}
    steps = Steps(len(wanted))
    for image in wanted:
        with staged(image) as folder:
            arguments = {name: value.format(**references) for name, value in image.arguments.items()}
            digest = tree_hash(folder, repr(sorted(arguments.items())), "" if image.program else f"{base} {SUITE}")
            reference = f"{REGISTRY}/{image.name}:{VERSION}-{digest}"
            if not builder.has(reference):
                with steps.step(f"building image {image.name}"):
                    builder.build(reference, folder, arguments, "" if image.program else base)
            else:
                steps.done += 1
        references[image.name] = reference
        if set(only) and set(only) <= references.keys():
            break
    return references


@contextmanager
def staged(image: Image) -> Iterator[Path]:
    """The image's build context as a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="wisp-image-") as folder:
        image.stage(Path(folder))
        yield Path(folder)


def archive(reference: str) -> Path:
    """Where the cache keeps an image, as a docker-archive."""
    return cache_dir() / "images" / f"{reference.removeprefix(f'{REGISTRY}/').replace(':', '-')}.tar"


def build(reference: str, context: Path, arguments: dict[str, str], base: str) -> None:
    """Build one image and keep its archive; `base` is made sure of first unless empty."""
    if base:
        ensure_local(base)
    for below in arguments.values():
        ensure_local(below)
    log = logs_dir() / f"image-{reference.rpartition('/')[2].replace(':', '-')}.log"
    log.unlink(missing_ok=True)
    hint = "read the log; most often a package registry was not reachable, then run it again: it continues here"
    with inherited_settings() as volumes:
        options = [*volumes, *(f"--build-arg={name}={value}" for name, value in arguments.items())]
        command = [
            "bud",
            "--isolation",
            "chroot",
            "--network",
            "host",
            "--pull-never",
            "--layers",
            *options,
            "-t",
            reference,
            str(context),
        ]
        buildah(*command, log=log, what=f"building {reference}", hint=hint)
    save(reference)


@contextmanager
def inherited_settings() -> Iterator[list[str]]:
    """Buildah's options that lend this machine's certificate authorities, and pip's trust in them, to a build."""
    with tempfile.NamedTemporaryFile("w", prefix="wisp-pip-", suffix=".conf") as pip:
        pip.write(f"[global]\ncert = {BUILD_CA}\ntimeout = 180\n")
        pip.flush()
        Path(pip.name).chmod(0o644)
        yield [f"--volume={HOST_CA}:{BUILD_CA}:ro", f"--volume={pip.name}:/etc/pip.conf:ro"] if HOST_CA.exists() else []


def ensure_local(reference: str) -> None:
    """Make buildah know an image: from the cache, or bootstrapped where it is the base."""
    if buildah("images", "--quiet", "--filter", f"reference={reference}").strip():
        return
    kept = archive(reference)
    if kept.exists():
        buildah("pull", f"docker-archive:{kept}", what=f"reading {kept}")
        return
    bootstrap(reference)


def bootstrap(base: str) -> None:
    """Make the base image from Debian's own packages."""
    log = logs_dir() / "image-base.log"
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="wisp-base-") as folder:
        root = Path(folder) / "root.tar"
        options = [
            "--variant=minbase",
            "--include=ca-certificates",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
        ]
        run(
            ["mmdebstrap", *options, SUITE, str(root)],
            log=log,
            what="bootstrapping Debian",
            hint="read the log; is a Debian mirror reachable?",
        )
        container = buildah("from", "scratch").strip()
        buildah("add", container, str(root), "/")
        buildah("config", "--cmd", "bash", container)
        buildah("commit", "--rm", container, base)


def save(reference: str) -> None:
    """Write an image's archive, whole or not at all."""
    kept = archive(reference)
    kept.parent.mkdir(parents=True, exist_ok=True)
    fresh = kept.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    buildah("push", reference, f"docker-archive:{fresh}:{reference}", what=f"saving {reference}")
    fresh.replace(kept)
    for old in drop_old(kept):
        with suppress(ClusterError):  # a build elsewhere stands on it
            buildah("rmi", f"{reference.rpartition('-')[0]}-{old}")


def drop_old(kept: Path) -> list[str]:
    """Remove all but the ARCHIVES_KEPT newest versions of the image whose archive was just written; an older one is built again if it is wanted.

    Returns:
        The hashes in the tags of those that went.
    """
    name = kept.name.rpartition("-")[0]
    versions = sorted(kept.parent.glob(f"{name}-{'[0-9a-f]' * HASH_DIGITS}.tar"), key=lambda path: path.stat().st_mtime)
    for path in versions[:-ARCHIVES_KEPT]:
        path.unlink(missing_ok=True)
    return [path.stem.rpartition("-")[2] for path in versions[:-ARCHIVES_KEPT]]


def buildah(*arguments: str, log: Path | None = None, what: str = "", hint: str = "") -> str:
    """Run buildah on a store of its own below the cache."""
    store = ["--root", str(cache_dir() / "buildah"), "--runroot", "/run/wisp-buildah"]
    return run(["buildah", *store, *arguments], log=log, what=what or f"buildah {arguments[0]}", hint=hint)

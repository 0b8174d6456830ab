"""A folder with a Dockerfile as the image of a function: built and pushed with what the user has, named by what was pushed.

The builder is docker, podman or buildah, with its own credentials, cache and settings; nothing of an image or of a credential passes through
this process. Invariant: a Function gets the digest that the registry was given, never a tag, so that whatever is pushed later runs only once
it was deployed. Each content is pushed under a tag of its own, or a registry that drops what has no tag would take away what revisions still
run. It could only go wrong where a builder makes another image of the same content: without its cache that is another revision.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from wisp import output
from wisp.cluster import NODE, Cluster
from wisp.errors import CommandError, RefusedError, UsageError

FILES: Final = ("Dockerfile", "Containerfile")
_BUILDERS: Final = ("docker", "podman", "buildah")
_CHOICE: Final = "WISP_BUILDER"
_ARCHITECTURE: Final = "kubernetes.io/arch"
_LINES: Final = 200
"""What is kept of a builder's output, to be shown where it fails."""
_TAG_LENGTH: Final = 16
_DAEMON_SECONDS = 10
"""Docker's own client waits minutes for a DOCKER_HOST that is gone."""
_PART: Final = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    rf"(?P<repository>(?:localhost|[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9][A-Za-z0-9-]*(?=:))(?::\d+)?(?:/{_PART})+)(?::(?P<tag>\w[\w.-]{{0,127}}))?"
)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_PUSHED: Final = re.compile(rf"digest: ({_DIGEST.pattern})")
_FROM: Final = re.compile(r"(?im)^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?")
_AWS: Final = re.compile(r"(public\.ecr\.aws|amazon)/(lambda/|aws-lambda-)")
_RUNTIMES: Final = {"wisp-python": "python3.13", "wisp-nodejs": "nodejs24", "wisp-provided": "provided"}


class Image(NamedTuple):
    """An image to build and push."""

    where: str
    """Its place in wisp.yaml."""
    folder: Path
    file: Path
    name: str
    """With the registry, with a tag where the user wants one; empty where nobody said it."""


def find(folder: Path) -> Path | None:
    """The Dockerfile of a folder."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def planned(folder: Path, name: str, spec: Any, registry: str) -> Image | None:
    """What to build for a function of wisp.yaml; None where its code is no folder of an image.

    Raises:
        UsageError: there is nothing to build the image from, or its name is none.
    """
    code = spec.get("code") if isinstance(spec, dict) else None
    if not isinstance(code, dict) or "folder" not in code or "zip" in code:
        return None
    source = folder / str(code["folder"])
    file, place = find(source), f"wisp.yaml: functions.{name}.code"
    if file is None:
        if code.keys() == {"folder", "image"}:
            raise UsageError(f"{place}: there is no Dockerfile in {source} to build the image from")
        return None
    if code.keys() - {"folder", "image"}:
        raise UsageError(f"{place}: beside a folder with a Dockerfile write the image to push, and nothing else")
    given = str(code.get("image") or (f"{registry.rstrip('/')}/{name}" if registry else ""))
    if given and not _REFERENCE.fullmatch(given):
        told = f"{given!r} is no name to push to: write registry, path and no digest, as registry.example/team/{name}"
        raise UsageError(f"{place}.image: {told}" if "image" in code else f"--registry {registry}: {told}")
    return Image(place, source, file, given)


def assumed(file: Path, name: str) -> dict[str, Any]:
    """The wisp.yaml of a folder that has none: one function, which serves HTTP on $PORT unless the image's base says otherwise."""
    base = _base(file.read_text(encoding="utf-8", errors="replace"))
    runtime = _RUNTIMES.get(base.rpartition("/")[2].partition("@")[0].partition(":")[0], "container")
    spec: dict[str, Any] = {"runtime": runtime, "code": {"folder": "."}}
    if runtime in {"python3.13", "nodejs24"}:
        spec["handler"] = "app.handler"
    if _AWS.match(base):
        spec["signature"] = "lambda"
    return {"functions": {name: spec}}


def _base(text: str) -> str:
    """The image that the last stage of a Dockerfile stands on."""
    stages: dict[str, str] = {}
    base = ""
    for given, alias in _FROM.findall(text):
        base = stages.get(given.lower(), given)
        stages[alias.lower()] = base
    return base


def bring(image: Image, cluster: Cluster, spec: Mapping[str, Any]) -> str:
    """Build and push an image; returns its name with the digest.

    Raises:
        UsageError: nobody said where to push it, or there is no builder.
        CommandError: the builder failed; what it said has been shown.
    """
    parts = _REFERENCE.fullmatch(image.name)
    if parts is None:
        raise UsageError(
            f"{image.where}: {image.file} makes an image, and nobody said where it goes: write code: {{folder: ..., image: registry.example/NAME}}, "
            "or give --registry or WISP_REGISTRY; for the folder as files move the code into one without a Dockerfile"
        )
    with tempfile.TemporaryDirectory() as place:
        builder = _Builder(_choose(), Path(place), image)
        output.tell(f"{parts['repository']}: building with {builder.tool}")
        made = builder.build(_platform(cluster, spec.get("pod") or {}))
        tag = parts["tag"] or made.removeprefix("sha256:")[:_TAG_LENGTH]
        digest = builder.push(made, f"{parts['repository']}:{tag}")
    output.tell(f"{parts['repository']}@{digest} pushed")
    return f"{parts['repository']}@{digest}"


def _choose() -> str:
    """The builder's program.

    Raises:
        UsageError: there is none, or not the one that was chosen.
    """
    if chosen := os.environ.get(_CHOICE, ""):
        if chosen not in _BUILDERS or not shutil.which(chosen):
            raise UsageError(f"{_CHOICE}={chosen}: choose one of {', '.join(_BUILDERS)} that is installed")
        return chosen
    found = [tool for tool in _BUILDERS if shutil.which(tool)]
    if not found:
        raise UsageError(
            f"an image is to be built, and there is no builder on PATH: install one of {', '.join(_BUILDERS)}"
        )
    if found[0] == "docker" and len(found) > 1 and not _daemon_answers():
        return found[1]
    return found[0]


def _daemon_answers() -> bool:
    """Whether docker has more than its client here."""
    try:
        done = subprocess.run(["docker", "version"], check=False, capture_output=True, timeout=_DAEMON_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return not done.returncode


def _platform(cluster: Cluster, pod: Mapping[str, Any]) -> str:
    """What the nodes are that the pods may run on; empty where one may not look, or they differ."""
    wanted = pod.get("nodeSelector") or {}
    if named := wanted.get(_ARCHITECTURE):
        return f"linux/{named}"
    try:
        nodes = cluster.list(NODE, everywhere=True)
    except RefusedError:
        return ""
    told = [
        node["status"]["nodeInfo"] for node in nodes if wanted.items() <= node["metadata"].get("labels", {}).items()
    ]
    found = sorted({node["architecture"] for node in told if node["operatingSystem"] == "linux"})
    if len(found) > 1:
        output.tell(
            f"the cluster has nodes of {' and '.join(found)}, and the image is for what the builder chooses: "
            f"pod: {{nodeSelector: {{{_ARCHITECTURE}: ...}}}} decides it, and keeps the pods there"
        )
    return f"linux/{found[0]}" if len(found) == 1 else ""


class _Builder:
    """One image in the hands of one program."""

    def __init__(self, tool: str, place: Path, image: Image) -> None:
        """`place` is a folder for what it writes."""
        self.tool = tool
        self._place = place
        self._image = image

    def build(self, platform: str) -> str:
        """The id of the image."""
        made = self._place / "id"
        options = [f"--platform={platform}"] if platform else []
        options += (
            ["--layers"] if self.tool == "buildah" else []
        )  # the others keep layers unasked: no change, no new image
        self._run(
            "build",
            *options,
            f"--iidfile={made}",
            f"--file={self._image.file.resolve()}",
            str(self._image.folder.resolve()),
        )
        return made.read_text().strip()

    def push(self, made: str, name: str) -> str:
        """The digest that the registry has it under."""
        self._run("tag", made, name)
        if self.tool == "docker":  # says it at the end, and nowhere else as surely
            found = _PUSHED.findall("\n".join(self._run("push", name)))
        else:
            told = self._place / "digest"
            self._run("push", f"--digestfile={told}", name)
            found = _DIGEST.findall(told.read_text())
        if not found:
            raise CommandError(f"{self._image.where}: {self.tool} pushed {name} and did not say under which digest")
        return str(found[-1])

    def _run(self, *arguments: str) -> Sequence[str]:
        """The last lines of what a command said.

        Raises:
            CommandError: it failed.
        """
        # An attestation holds the time of the build: with it the same content would be another image each time.
        environment = {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"} | os.environ
        with subprocess.Popen(
            [self.tool, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as running:
            said = deque((line.rstrip("\n") for line in running.stdout or ()), _LINES)
        if running.returncode:
            output.tell("\n".join(said))
            raise CommandError(
                f"{self._image.where}: {self.tool} {arguments[0]} failed with exit code {running.returncode}: what it said stands above"
            )
        return said

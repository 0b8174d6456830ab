"""A folder with a Dockerfile: how it is built and pushed, with what, and what is said where that can't be."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fixtures.builder import DIGEST, ID, Builders, builders
from wisp import image, project
from wisp.cluster import NODE, Kind
from wisp.errors import CommandError, RefusedError, UsageError

SPEC = {"runtime": "container", "code": {"folder": "."}}


class Nodes:
    """A cluster of nodes by their labels' architecture; None: one may not look."""

    def __init__(self, *architectures: str | None) -> None:
        """Of these."""
        self._architectures = architectures

    def list(self, kind: Kind, *, everywhere: bool) -> list[dict[str, Any]]:
        """The nodes."""
        assert (kind, everywhere) == (NODE, True)
        if None in self._architectures:
            raise RefusedError(403, "not allowed", [])
        return [
            {
                "metadata": {"labels": {"disk": each}},
                "status": {"nodeInfo": {"architecture": each, "operatingSystem": "linux"}},
            }
            for each in self._architectures
        ]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builders:
    """A PATH without a builder."""
    return builders(tmp_path / "tools", monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a Dockerfile."""
    made = tmp_path / "site"
    made.mkdir()
    (made / "Dockerfile").write_text("FROM scratch\n")
    return made


def bring(folder: Path, cluster: Nodes, name: str = "reg.example/team/site", **pod: Any) -> str:
    """What becomes of the folder."""
    plan = image.planned(folder, "site", SPEC | {"code": {"folder": ".", "image": name}}, "")
    assert plan
    return image.bring(plan, cluster, {"pod": pod})  # type: ignore[arg-type] # all that it asks for


@pytest.mark.parametrize(
    ("tool", "extra", "pushing"),
    [("docker", "", ""), ("podman", "", " --digestfile="), ("buildah", " --layers", " --digestfile=")],
)
def test_each_builder_is_told_in_its_words(tools: Builders, folder: Path, tool: str, extra: str, pushing: str) -> None:
    """It builds for the nodes' platform, tags the content by its id and pushes it; the function's image is what was pushed, by digest."""
    tools.install(tool)
    assert bring(folder, Nodes("arm64", "arm64")) == f"reg.example/team/site@{DIGEST}"
    build, tag, push = tools.calls()
    assert build.startswith(f"{tool} build --platform=linux/arm64{extra} --iidfile=")
    assert build.endswith(f"--file={folder}/Dockerfile {folder}")
    assert tag == f"{tool} tag {ID} reg.example/team/site:{'1' * 16}"
    assert push.startswith(f"{tool} push{pushing}")
    assert push.endswith(f" reg.example/team/site:{'1' * 16}")


@pytest.mark.parametrize(
    ("nodes", "pod", "platform", "told"),
    [
        (Nodes("amd64"), {}, " --platform=linux/amd64", ""),
        (Nodes("amd64", "arm64"), {}, "", "nodes of amd64 and arm64"),
        (Nodes("amd64", "arm64"), {"nodeSelector": {"disk": "arm64"}}, " --platform=linux/arm64", ""),
        (Nodes("amd64"), {"nodeSelector": {"kubernetes.io/arch": "s390x"}}, " --platform=linux/s390x", ""),
        (Nodes(None), {}, "", ""),
        (Nodes(), {}, "", ""),
    ],
)
def test_the_platform_is_that_of_the_nodes(
    tools: Builders,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    nodes: Nodes,
    pod: Mapping[str, Any],
    platform: str,
    told: str,
) -> None:
    """Of those that the pods may run on; where they differ, or nobody may look, the builder decides, and differing nodes are told of."""
    tools.install("podman")
    bring(folder, nodes, **pod)
    assert tools.calls()[0].startswith(f"podman build{platform} --iidfile=")
    assert told in capsys.readouterr().err


def test_a_tag_of_the_users_is_pushed_under(tools: Builders, folder: Path) -> None:
    """A tag in code.image is the one that is pushed, and the function's image is the digest all the same."""
    tools.install("buildah")
    assert bring(folder, Nodes("amd64"), "localhost:5000/site:v1") == f"localhost:5000/site@{DIGEST}"
    assert tools.calls()[-1].endswith(" localhost:5000/site:v1")


def test_the_builder_is_one_that_works(tools: Builders, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker comes first unless only its client is here; WISP_BUILDER chooses another."""
    tools.install("docker", "buildah")
    bring(folder, Nodes("amd64"))
    assert [line.partition(" --")[0] for line in tools.calls()[:2]] == ["docker version", "docker build"]
    tools.without_daemon()
    bring(folder, Nodes("amd64"))
    assert tools.calls()[-1].startswith("buildah push")
    monkeypatch.setenv("WISP_BUILDER", "docker")
    bring(folder, Nodes("amd64"))
    assert tools.calls()[-1].startswith("docker push")
    monkeypatch.setenv("WISP_BUILDER", "podman")
    with pytest.raises(UsageError, match="WISP_BUILDER=podman: choose one of docker, podman, buildah"):
        bring(folder, Nodes("amd64"))


def test_a_daemon_that_does_not_answer_is_none(tools: Builders, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's client would wait for minutes where DOCKER_HOST names a machine that is gone."""
    monkeypatch.setattr(image, "_DAEMON_SECONDS", 0.5)
    tools.install("buildah")
    (tools.folder / "docker").write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    (tools.folder / "docker").chmod(0o700)
    bring(folder, Nodes("amd64"))
    assert tools.calls()[-1].startswith("buildah push")


def test_no_builder(tools: Builders, folder: Path) -> None:
    """It is said what to install."""
    assert not tools.calls()
    with pytest.raises(UsageError, match="no builder on PATH: install one of docker, podman, buildah"):
        bring(folder, Nodes("amd64"))


def test_a_build_that_fails(tools: Builders, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the builder said is shown, both its outputs, and then the sentence with the place in wisp.yaml."""
    tools.install("docker")
    tools.broken()
    with pytest.raises(CommandError, match=r"wisp.yaml: functions.site.code: docker build failed with exit code 125"):
        bring(folder, Nodes("amd64"))
    assert "STEP 1: a step of docker\nno space left\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "registry", "said"),
    [
        ({"image": "team/site"}, "", "code.image: 'team/site' is no name to push to"),
        ({"image": "reg.example/Site"}, "", "is no name to push to"),
        ({"image": f"reg.example/site@{DIGEST}"}, "", "is no name to push to"),
        ({"image": "--help/x.y/z"}, "", "is no name to push to"),
        ({"image": "-reg:5000/site"}, "", "is no name to push to"),
        ({}, "nowhere", "--registry nowhere: 'nowhere/site' is no name to push to"),
        ({"files": {}}, "", "beside a folder with a Dockerfile write the image to push, and nothing else"),
    ],
)
def test_a_wrong_name_is_refused(folder: Path, code: dict[str, Any], registry: str, said: str) -> None:
    """Before anything is built."""
    with pytest.raises(UsageError, match=said):
        image.planned(folder, "site", SPEC | {"code": {"folder": "."} | code}, registry)


def test_nobody_said_where_it_goes(tools: Builders, folder: Path) -> None:
    """Then nothing is built, and the ways to say it are named."""
    tools.install("docker")
    plan = image.planned(folder, "site", SPEC, "")
    assert plan
    with pytest.raises(
        UsageError, match=r"nobody said where it goes: write code: .* or give --registry or WISP_REGISTRY"
    ):
        image.bring(plan, Nodes("amd64"), {})  # type: ignore[arg-type]
    assert not tools.calls()


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("FROM scratch\n", {"runtime": "container"}),
        ("ARG BASE=x\nFROM ${BASE}\n", {"runtime": "container"}),
        ("FROM public.ecr.aws/lambda/python:3.13\n", {"runtime": "container", "signature": "lambda"}),
        (
            "from golang AS made\nFROM --platform=$X amazon/aws-lambda-go:1\n",
            {"runtime": "container", "signature": "lambda"},
        ),
        (
            "FROM ghcr.io/wisp-faas/wisp-python:0.1.0 AS made\nFROM made\n",
            {"runtime": "python3.13", "handler": "app.handler"},
        ),
        ("FROM ghcr.io/wisp-faas/wisp-provided@sha256:0\n", {"runtime": "provided"}),
    ],
)
def test_a_dockerfile_alone_is_a_function(folder: Path, text: str, spec: dict[str, Any]) -> None:
    """Without wisp.yaml it is called as the folder is, serves HTTP, and runs as its base says where that is Lambda's or a runtime's."""
    (folder / "Dockerfile").write_text(text)
    loaded = project.load(folder, "reg.example:5000/team/")
    (manifest,) = loaded.manifests
    assert manifest["metadata"]["name"] == "site"
    assert manifest["spec"] == spec | {"code": {"image": "reg.example:5000/team/site"}}
    assert loaded.images["site"].name == "reg.example:5000/team/site"


def test_a_runtimes_folder_is_still_served_here(folder: Path) -> None:
    """An image on the runtime's is built for the cluster, and its folder is what --local serves; one of its own has nothing to serve."""
    text = "functions:\n  a: {runtime: python3.13, handler: app.handler, code: {folder: .}}\n  b: {runtime: container, code: {folder: .}}\n"
    (folder / "wisp.yaml").write_text(text)
    loaded = project.load(folder)
    assert (sorted(loaded.images), list(loaded.folders)) == (["a", "b"], ["a"])

"""The image's inputs agree with the workspace."""

from __future__ import annotations

import re
import tomllib

from unit.runtime.conftest import SOURCE
from wisp_runtime.settings import Settings


def test_layers_libraries_are_found() -> None:
    """The folders of shared libraries are set before Python starts: the linker reads them then only."""
    dockerfile = (SOURCE.parent / "Dockerfile").read_text()
    assert "ENV LD_LIBRARY_PATH=/var/task:/var/task/lib:/opt/lib\n" in dockerfile
    env = {"LD_LIBRARY_PATH": "/var/task:/var/task/lib:/opt/lib", "PATH": "/bin"}
    Settings({}, "app.handler", "/var/task").export(env)
    assert (env["LD_LIBRARY_PATH"], env["PATH"]) == ("/var/task:/var/task/lib:/opt/lib", "/bin:/opt/bin")


def test_the_image_installs_what_is_locked() -> None:
    """The pinned requirements of the image are the versions of uv.lock, so that what is tested is what runs."""
    lock = tomllib.loads((SOURCE.parents[2] / "uv.lock").read_text())
    versions = {package["name"]: package["version"] for package in lock["package"]}
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (SOURCE.parent / "requirements.txt").read_text(), re.MULTILINE))
    assert {"httptools", "cloudevents"} <= pinned.keys()
    assert pinned == {name: versions[name] for name in pinned}

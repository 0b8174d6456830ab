"""The image's inputs agree with the workspace."""

from __future__ import annotations

import re
import tomllib

from unit.runtime.conftest import SOURCE


def test_the_image_installs_what_is_locked() -> None:
    """The pinned requirements of the image are the versions of uv.lock, so that what is tested is what runs."""
    lock = tomllib.loads((SOURCE.parents[2] / "uv.lock").read_text())
    versions = {package["name"]: package["version"] for package in lock["package"]}
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (SOURCE.parent / "requirements.txt").read_text(), re.MULTILINE))
    assert {"httptools", "cloudevents"} <= pinned.keys()
    assert pinned == {name: versions[name] for name in pinned}

"""An image's reference says what is in it: the same content the same name, another content another name."""

import os
from pathlib import Path

import pytest
from wisp_cluster import images
from wisp_cluster.paths import VERSION


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A small build context."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("x")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def test_hash_is_stable_and_covers_content_names_and_modes(context: Path) -> None:
    """Bytes, a name, the executable bit and an argument each change it; time stamps do not."""
    first = images.tree_hash(context)
    (context / "src" / "app.py").touch()
    assert images.tree_hash(context) == first
    seen = {first, images.tree_hash(context, "argument")}
    (context / "src" / "app.py").chmod(0o755)
    seen.add(images.tree_hash(context))
    (context / "src" / "app.py").write_text("y")
    seen.add(images.tree_hash(context))
    (context / "src" / "app.py").rename(context / "src" / "app2.py")
    seen.add(images.tree_hash(context))
    assert len(seen) == 5


def test_build_sees_only_the_inputs_listed(tmp_path: Path, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not hashed is not in the context either, so it can't get into the image unnoticed."""
    (context / "secret").write_text("s")
    (context / "src" / "__pycache__").mkdir()
    (context / "src" / "__pycache__" / "app.pyc").write_text("c")
    monkeypatch.setattr(images, "checkout", lambda: context.parent)
    target = tmp_path.parent / f"{tmp_path.name}-staged"
    target.mkdir()
    images.Image("a", context=context.name, inputs=["src"]).stage(target)
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert files == {"Dockerfile", "src/app.py"}


def test_list_is_in_building_order() -> None:
    """Every build argument names an image that stands before its user, and no tag is `latest`."""
    _, listed = images.images()
    seen: dict[str, str] = {}
    for image in listed:
        for value in image.arguments.values():
            assert value.format(**seen)
        seen[image.name] = image.name
    assert "latest" not in VERSION


def test_only_the_newest_versions_of_an_image_are_kept(tmp_path: Path) -> None:
    """The cache does not grow with every edit, and one image's versions never cost another's, whatever their names share."""
    other = tmp_path / f"wisp-python-extra-0.1.0-{'0' * 12}.tar"
    archives = [tmp_path / f"wisp-python-0.1.0-{number:012x}.tar" for number in range(5)]
    for age, path in enumerate([other, *archives]):
        path.touch()
        os.utime(path, (age, age))
    assert images.drop_old(archives[-1]) == ["000000000000", "000000000001"]
    assert sorted(tmp_path.iterdir()) == sorted([other, *archives[-images.ARCHIVES_KEPT :]])

"""A requirements.txt beside the code: what of it is sent, and how a line that can't be is named."""

from pathlib import Path

import pytest
from fixtures.cli import HELLO, write_project
from wisp import project
from wisp.errors import UsageError

LISTED = """# what the function needs
Pillow==11.0.0   # pinned

requests[socks] >=2.31,<3
tomli; python_version < '3.11'
"""


def requirements(folder: Path, listed: str, text: str = HELLO) -> list[str] | None:
    """What becomes of a project with this requirements.txt."""
    path = Path(write_project(folder, text))
    (path / "function" / "requirements.txt").write_text(listed)
    (manifest,) = project.load(path).manifests
    found: list[str] | None = manifest["spec"].get("requirements")
    return found


def test_lines_become_requirements(tmp_path: Path) -> None:
    """Comments and empty lines stay out; a file without any packages asks for none."""
    assert requirements(tmp_path / "1", LISTED) == [
        "Pillow==11.0.0",
        "requests[socks] >=2.31,<3",
        "tomli; python_version < '3.11'",
    ]
    assert requirements(tmp_path / "2", "# none\n") is None


def test_spec_has_the_last_word(tmp_path: Path) -> None:
    """What the spec lists counts, [] means none, and other runtimes have no use for the file."""
    assert requirements(tmp_path / "1", LISTED, HELLO + "    requirements: [other]\n") == ["other"]
    assert requirements(tmp_path / "2", LISTED, HELLO + "    requirements: []\n") is None
    assert requirements(tmp_path / "3", LISTED, HELLO.replace("python3.13", "nodejs24")) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("-r other.txt", "no options, URLs and paths"),
        ("./local", "no options, URLs and paths"),
        ("a @ https://example.org/a.whl", "no options, URLs and paths"),
        ("a==1 \\\n    --hash=sha256:00", "uv export --no-hashes"),
        ("${SECRET}", "it is no requirement"),
        ("a b", "it is no requirement"),
    ],
)
def test_other_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    """The message names file, line and what to do."""
    with pytest.raises(UsageError, match=r"requirements\.txt, line 2: ") as error:
        requirements(tmp_path, f"good\n{line}\n")
    assert says in str(error.value)

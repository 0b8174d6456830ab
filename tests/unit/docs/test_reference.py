"""The documentation that is generated is current, and what is written by hand points at things that exist."""

import re
from pathlib import Path

import pytest
from wisp_api import conditions, reference

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")])


def test_reference_is_current() -> None:
    """docs/reference.md is what the types say today."""
    assert (ROOT / "docs" / "reference.md").read_text() == reference.document(), "run make manifests"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file or folder of the checkout."""
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_decision_is_in_the_index() -> None:
    """docs/decisions/README.md lists each page of its folder."""
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for page in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        assert f"({page.name})" in index, page.name


def test_metrics_that_operations_names_exist() -> None:
    """Each metric of docs/operations.md is defined in the code of some part."""
    code = "".join(path.read_text() for part in ("events", "operator") for path in (ROOT / part / "src").rglob("*.py"))
    named = set(
        re.findall(r"`(wisp_(?:router|ingest|reader|operator)_\w+)`", (ROOT / "docs" / "operations.md").read_text())
    )
    assert named
    assert [name for name in sorted(named) if f'"{name.removesuffix("_total")}"' not in code] == []


def test_reasons_that_the_guide_names_exist() -> None:
    """Each condition and reason of the guide's table of troubles is a constant of `conditions`."""
    table = (ROOT / "docs" / "guide.md").read_text().partition("| Condition | Reason |")[2]
    named = set(re.findall(r"`([A-Z]\w+)`", table))
    assert named
    assert named <= {value for value in vars(conditions).values() if isinstance(value, str)}

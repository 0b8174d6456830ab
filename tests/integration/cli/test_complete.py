"""Names at TAB: those of the cluster, of the kind that the command takes."""

from pathlib import Path

from fixtures.cli import BOTH, Wisp, write_project
from fixtures.process import wait_until


def offered(wisp: Wisp, *words: str) -> list[str]:
    """What bash is offered."""
    done = wisp.complete(*words[:-1], "-n", wisp.namespace, words[-1])
    assert (done.code, done.err) == (0, "")
    return done.out.split()


def test_names_are_offered(wisp: Wisp, tmp_path: Path) -> None:
    """Functions where a function is asked for, subscriptions where one is, both where either, of one kind after its prefix; those that begin as typed."""
    text = BOTH.replace("  hello:", "  help: {runtime: python3.13, handler: a.b, code: {folder: function}}\n  hello:")
    assert wisp("deploy", write_project(tmp_path, text), "--no-wait").code == 0
    cases: list[tuple[tuple[str, ...], list[str]]] = [
        (("invoke", "hel"), ["hello", "help"]),
        (("logs", "hell"), ["hello"]),
        (("rollback", "o"), []),
        (("replay", "o"), ["on-upload"]),
        (("dead", "list", "o"), ["on-upload"]),
        (("describe", ""), ["hello", "help", "on-upload"]),
        (("delete", "fn/hell"), ["fn/hello"]),
        (("delete", "sub/"), ["sub/on-upload"]),
        (("delete", "pod/"), []),
    ]
    for words, names in cases:  # a machine that is busy may take longer than a shell waits: TAB again
        wait_until(lambda words=words, names=names: offered(wisp, *words) == names, f"{words}: {names}")  # type: ignore[misc]

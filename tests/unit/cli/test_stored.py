"""How long `wisp deploy` goes on where the code store is busy."""

from types import SimpleNamespace

import pytest
from wisp import stored
from wisp.errors import CommandError

SLOW = 150.0
"""Seconds of an attempt: longer than the command's patience."""


class Attempts:
    """Uploads over a slow line that the store cuts off for others, on a clock of their own."""

    def __init__(self, patch: pytest.MonkeyPatch, good: int) -> None:
        """The `good`-th one is taken."""
        self.made = 0
        self._good = good
        self._now = 1000.0
        patch.setattr(stored, "time", SimpleNamespace(monotonic=lambda: self._now, sleep=self._pass))
        patch.setattr(stored, "_try", self._try)

    def _pass(self, seconds: float) -> None:
        self._now += seconds

    def _try(self, *_: object) -> bool:
        self.made += 1
        self._pass(SLOW)
        if self.made != self._good:
            raise stored.BusyError("wisp-store:8080 answers 503: others wait")
        return True


def test_an_upload_that_was_cut_off_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it took longer than the patience: that one counts from the answer."""
    attempts = Attempts(monkeypatch, good=3)
    assert stored.bring(None, "0" * 64, b"", "wisp-system")  # type: ignore[arg-type] # asked by nobody
    assert attempts.made == 3


def test_a_store_that_stays_busy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it answered last."""
    attempts = Attempts(monkeypatch, good=0)
    with pytest.raises(CommandError, match="can't be uploaded now: wisp-store:8080 answers 503: others wait"):
        stored.bring(None, "0" * 64, b"", "wisp-system")  # type: ignore[arg-type] # asked by nobody
    assert attempts.made == 3

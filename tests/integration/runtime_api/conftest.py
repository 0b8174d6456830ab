"""The bridge with real clients of the Runtime API."""

from unit.runtime_api.conftest import bridge

__all__ = ["bridge"]

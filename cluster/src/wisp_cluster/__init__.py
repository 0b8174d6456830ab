"""Wisp."""

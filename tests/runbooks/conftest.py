"""Goldens, as for the unit tests."""

from tests.unit.conftest import matches_golden

__all__ = ["matches_golden"]

"""Targets -> snapshots."""

from diagnose.collect.case import Order
from diagnose.collect.first import Collection

__all__ = ["Collection", "Order"]

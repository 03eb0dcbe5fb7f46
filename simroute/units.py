"""Units: the constants behind the suffixes `_s`, `_bytes`, `_usd_per_hour`. Imports nothing of simroute."""

from __future__ import annotations

GIB = 1024**3
MIB = 1024**2
HOURS_PER_MONTH = 730.0
"""The month of every bill: 365 days x 24 h / 12."""
SECONDS_PER_HOUR = 3600.0
SECONDS_PER_WEEK = 7 * 24 * SECONDS_PER_HOUR

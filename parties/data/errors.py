"""The error of a source that cannot be read."""

from __future__ import annotations

from mpc.errors import DataError


class SourceError(DataError):
    """Our rows cannot be read. The text is for their owner, free of values and passwords; peers learn the type."""

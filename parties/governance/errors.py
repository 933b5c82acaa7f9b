"""Errors of governance: each says in one line who or what is wrong, and what to do."""

from __future__ import annotations

from mpc.errors import SottovoceError


class GovernanceError(SottovoceError, ValueError):
    """A file, key, record or log is not what it must be."""


class CanonicalError(GovernanceError):
    """A value has no canonical form, or bytes are not one."""


class KeyFileError(GovernanceError):
    """A key or certificate cannot be used or written."""


class CardError(GovernanceError):
    """A party card is malformed, or not signed by its key."""


class ConsortiumError(GovernanceError):
    """A consortium file is malformed, or does not hold who was asked for."""


class StudyError(GovernanceError):
    """A study file is malformed, or does not fit its consortium."""


class RecordError(GovernanceError):
    """A record is malformed, or not a statement of the member that it names."""


class AuditError(GovernanceError):
    """An audit log was altered, belongs to another key, or cannot be written."""

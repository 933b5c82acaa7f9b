"""On which rows a study may be computed again: on those of the first attempt that came to compute.

Equal rows give equal results, so that a repeat tells nothing new. Rows that have changed would be told apart
by whoever sees both results, or both counts.
"""

from __future__ import annotations

from parties.node.messages import Event, Rows
from parties.node.store import Store


class Pin:
    """The rows of one study at this node.

    Parameters
    ----------
    store : Store
    study : str
        Its hash.

    Attributes
    ----------
    key : bytes
        The study's secret at this node, with which the rows are hashed.
    digest : str or None
        The hash that rows must have; None if they may be any.

    Raises
    ------
    StoreError
        If the key cannot be made, or what was written is damaged.
    """

    def __init__(self, store: Store, study: str) -> None:
        self._store = store
        self._study = study
        self.key = store.rows_key(study)
        self.digest = store.rows_digest(study)

    def heed(self, event: Event) -> None:
        """Pin the rows that the worker has loaded; it computes nothing on them before.

        Raises
        ------
        StoreError
            If they cannot be pinned: then nothing may be computed on them.
        """
        if isinstance(event, Rows) and event.digest is not None and self.digest is None:
            self._store.pin_rows(self._study, event.digest)
            self.digest = event.digest

"""Release: what may leave the shares. Disclosure control, suppression of small cells, the form of results."""

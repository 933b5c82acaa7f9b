"""An organisation's own rows: read from its source, checked against the study's schema, or made up."""

"""A node: what an organisation runs to take part in studies."""

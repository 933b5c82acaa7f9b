"""Whole consortia, run as they are run in earnest: real nodes, real sockets, from key to result."""

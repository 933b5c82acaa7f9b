"""Links through a relay, for nodes that may only dial out: sealed from end to end, forwarded in between."""

"""kill -9 of guests, frontends, servers and VMMs, at every step that they make (docs/kills.md)."""

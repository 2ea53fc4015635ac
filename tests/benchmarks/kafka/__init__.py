"""The distributed half beside its peers: one set of events, one broker, one PostgreSQL, one run."""

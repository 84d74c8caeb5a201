"""Policy stores: in memory, and in a local SQLite file."""

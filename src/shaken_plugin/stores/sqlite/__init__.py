"""The embedded policy store: one local SQLite file in WAL mode, many readers, one writer at a time.

Readers see a change as soon as its transaction ends, and never wait for a writer. Connections
open lazily in the process and thread that use them: a connection must not cross a fork. No read
transaction outlives a call. The file is made by `create`, readers never make one.

The file also carries the settings that were checked with the policy, so that a worker can take
them at a reload without parsing YAML.
"""

from shaken_plugin.sqlitefile import FILE_MODE, create
from shaken_plugin.stores.sqlite.reader import SqliteStore
from shaken_plugin.stores.sqlite.schema import SCHEMA_VERSION, Header, read_header
from shaken_plugin.stores.sqlite.writer import (
    InForce,
    SqlitePolicy,
    differs,
    put_settings,
    remember_state,
    replace_policy,
)

__all__ = [
    "FILE_MODE",
    "SCHEMA_VERSION",
    "Header",
    "InForce",
    "SqlitePolicy",
    "SqliteStore",
    "create",
    "differs",
    "put_settings",
    "read_header",
    "remember_state",
    "replace_policy",
]

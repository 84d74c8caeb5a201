"""The embedded policy store: one local SQLite file in WAL mode, many readers, one writer.

Readers see a change as soon as its transaction ends, and never wait for a writer. Connections
open lazily in the process and thread that use them: a connection must not cross a fork. No read
transaction outlives a call. The file is made by `create`, readers never make one.

The file also carries the settings that were checked with the policy, so that a worker can take
them at a reload without parsing YAML.
"""

from shaken_plugin.sqlitefile import FILE_MODE, create
from shaken_plugin.stores.sqlite.file import SCHEMA_VERSION, Header, read_header, replace_policy
from shaken_plugin.stores.sqlite.reader import SqliteStore

__all__ = ["FILE_MODE", "SCHEMA_VERSION", "Header", "SqliteStore", "create", "read_header", "replace_policy"]

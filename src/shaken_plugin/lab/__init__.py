"""The lab: a test PKI, servers for tests, and the demonstration. Not for production."""

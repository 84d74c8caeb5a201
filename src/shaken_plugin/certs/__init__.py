"""Certificates and keys on this host: documents of other signers, credentials of our own."""

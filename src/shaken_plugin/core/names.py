"""X.500 names in a form that can be compared octet by octet (RFC 5280 §7.1)."""

from __future__ import annotations

from cryptography import x509


def canonical_name(name: x509.Name) -> bytes:
    """The same octets for every spelling of a name that RFC 5280 §7.1 calls equal.

    An issuer may write its name as PrintableString in one place and as UTF8String in another, in
    other case, or with more blanks. Were octets compared, such a certificate would escape its
    revocation.

    Raises:
        ValueError: the name cannot be read; the library reads it only when it is asked.
    """
    sets = [sorted(_attribute(attribute) for attribute in rdn) for rdn in name.rdns]
    return b"\0".join(b"+".join(attributes) for attributes in sets)


def _attribute(attribute: x509.NameAttribute[str | bytes]) -> bytes:
    value = attribute.value
    text = value.hex() if isinstance(value, bytes) else " ".join(value.casefold().split())
    return f"{attribute.oid.dotted_string}={len(text)}:{text}".encode("utf-8", "surrogatepass")

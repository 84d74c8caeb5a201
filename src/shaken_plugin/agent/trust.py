"""What the agent itself believes: which documents are worth keeping, whose revocation list to fetch.

Verdicts on calls are the workers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography import x509

from shaken_plugin.core.certificates import TrustAnchors, parse_chain
from shaken_plugin.errors import VerificationFailure


class Trust:
    """The anchors of the trust list that is chosen.

    Args:
        fixed: from files of the operator.
        found: told of the revocation lists (URLs) that each certificate of a validated path names,
            in the thread that judges; None where these are not wanted.
    """

    def __init__(self, fixed: Sequence[x509.Certificate], found: Callable[[list[str]], None] | None) -> None:
        self._fixed = tuple(fixed)
        self._found = found
        self._anchors = TrustAnchors(self._fixed) if fixed else None

    def listed(self, anchors: Sequence[bytes]) -> None:
        """Take over the anchors of a list that was verified.

        Raises:
            ValueError, VerificationFailure: one of them is no CA certificate; nothing changes.
        """
        listed = [x509.load_der_x509_certificate(der) for der in anchors]
        self._anchors = TrustAnchors([*self._fixed, *listed])

    def judge(self, document: bytes, now: float) -> bool:
        """Whether a document's path leads to an anchor.

        Raises:
            VerificationFailure: it cannot be read.
        """
        chain, anchors = parse_chain(document), self._anchors  # which may change meanwhile
        if anchors is None:
            return False
        try:
            anchors.validate(chain, now)
        except VerificationFailure:
            return False
        if self._found is not None:
            # Only now: before, anybody could have us fetch what they like.
            for certificate in anchors.path(chain, now):
                if urls := distribution_points(certificate):
                    self._found(urls)
        return True


def distribution_points(certificate: x509.Certificate) -> list[str]:
    """The URLs of a certificate's revocation lists (RFC 5280 §4.2.1.13)."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return []
    return [
        name.value
        for point in points
        for name in point.full_name or ()
        if isinstance(name, x509.UniformResourceIdentifier)
    ]

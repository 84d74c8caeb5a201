"""Every way this package says no.

Two trees meet here. Exceptions tell an operator or a caller of the library what is wrong,
where, and what to do. `FailureCode` and `SkipReason` name the outcome of a single call:
stable, machine-readable names that appear in variables, logs and counters, each carrying
the SIP answer and the section that asks for it.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Verstat(Enum):
    """verstat of 3GPP TS 24.229 §7.2A.20, a tel-URI parameter."""

    PASSED = "TN-Validation-Passed"
    FAILED = "TN-Validation-Failed"
    NONE = "No-TN-Validation"


class Failure(NamedTuple):
    """What one verification failure means on the wire and to the operator."""

    status: int
    """SIP status of RFC 8224 §6.2.2 (also the cause in a STIR Reason, RFC 9410)."""
    phrase: str
    """Reason phrase that goes with the status."""
    verstat: Verstat
    """verstat by the table of ATIS-1000082 (the ``strict`` profile says FAILED for all)."""
    section: str
    """Where the requirement stands."""
    meaning: str
    """One line for the person who reads the log."""


_INVALID = "Invalid Identity Header"
_BAD_INFO = "Bad Identity Info"
_UNSUPPORTED = "Unsupported Credential"
_STALE = "Stale Date"


class FailureCode(Enum):
    """Named verification failures. The member's name in lower case is the stable code.

    Rows E3-E19 are those of the ATIS-1000082 outcome table.
    """

    NO_IDENTITY = Failure(
        428, "Use Identity Header", Verstat.NONE, "RFC 8224 §6.2.2", "the call carries no Identity header"
    )
    NO_SUPPORTED_PPT = Failure(
        428,
        "Use Supported PASSporT Format",
        Verstat.NONE,
        "RFC 8224 §6.2 step 1",
        "none of the Identity headers has a PASSporT type that is supported",
    )
    NUMBER_NOT_SIGNED = Failure(
        428,
        "Use Supported PASSporT Format",
        Verstat.NONE,
        "RFC 8443 §4.2, RFC 9795 §8",
        "the PASSporTs speak of priority or of a name alone, none vouches for the caller's number",
    )
    IDENTITY_UNREADABLE = Failure(
        438, _INVALID, Verstat.NONE, "RFC 8224 §4", "the Identity header holds bytes that are not text"
    )
    IDENTITY_TOO_LARGE = Failure(
        438, _INVALID, Verstat.NONE, "RFC 8224 §4", "the Identity header is longer than the limit"
    )
    IDENTITY_MALFORMED = Failure(438, _INVALID, Verstat.NONE, "RFC 8224 §4", "the Identity header breaks the grammar")
    COMPACT_FORM = Failure(
        438, _INVALID, Verstat.NONE, "RFC 8588 §4, RFC 8946 §3; E4", "PASSporTs of this type are in full form only"
    )
    PPT_MISMATCH = Failure(
        438,
        _INVALID,
        Verstat.NONE,
        "RFC 8224 §4; E5, E13",
        "the ppt parameter and the ppt in the token are not the same",
    )
    INFO_MISSING = Failure(436, _BAD_INFO, Verstat.NONE, "RFC 8224 §4; E6", "the Identity header has no info parameter")
    INFO_NOT_ALLOWED = Failure(
        436,
        _BAD_INFO,
        Verstat.NONE,
        "ATIS-1000074; E7",
        "the certificate URL breaks the rules: https, port 443 or 8443, a public host, no user, query or fragment",
    )
    CERTIFICATE_UNAVAILABLE = Failure(
        436, _BAD_INFO, Verstat.NONE, "RFC 8224 §6.2 step 3; E8", "the certificate is not at hand"
    )
    INFO_TOO_MANY = Failure(
        436,
        _BAD_INFO,
        Verstat.NONE,
        "RFC 8224 §6.2 step 3",
        "the Identity headers before it name as many certificates as are looked up for one call",
    )
    REPLAYED = Failure(
        438, _INVALID, Verstat.FAILED, "RFC 8224 §12.1", "the same PASSporT came with another call a short while ago"
    )
    CERTIFICATE_NOT_YET = Failure(
        436,
        _BAD_INFO,
        Verstat.NONE,
        "RFC 8224 §6.2 step 3",
        "the certificate is asked for and not there yet; the call did not wait for it, or not long enough",
    )
    TRUST_LIST_UNAVAILABLE = Failure(
        436,
        _BAD_INFO,
        Verstat.NONE,
        "RFC 8224 §6.2 step 3",
        "the trust list is not at hand or has ended, so nobody can say whether the signer's root is in it",
    )
    HEADER_INCOMPLETE = Failure(
        436, _BAD_INFO, Verstat.NONE, "RFC 8225 §4; E9", "the token's header lacks ppt, typ, alg or x5u"
    )
    X5U_MISMATCH = Failure(436, _BAD_INFO, Verstat.NONE, "RFC 8224 §4.1; E10", "info and x5u are not the same URL")
    TYP_UNSUPPORTED = Failure(437, _UNSUPPORTED, Verstat.NONE, "RFC 8225 §4.1; E11", 'typ is not "passport"')
    ALG_UNSUPPORTED = Failure(437, _UNSUPPORTED, Verstat.NONE, "RFC 8225 §4.2; E12", "alg is not ES256")
    ALG_MISMATCH = Failure(
        438, _INVALID, Verstat.NONE, "RFC 8224 §4", "the alg parameter and the alg in the token differ"
    )
    CRITICAL_UNKNOWN = Failure(
        438, _INVALID, Verstat.NONE, "RFC 7515 §4.1.11", "the token has a crit header we do not understand"
    )
    TOKEN_MALFORMED = Failure(438, _INVALID, Verstat.NONE, "RFC 8225 §3", "the token is not a PASSporT in JWS form")
    CLAIM_MISSING = Failure(
        438, "Invalid PASSporT", Verstat.NONE, "RFC 8225 §5; E14", "a claim is missing that the type demands"
    )
    CLAIM_INVALID = Failure(438, _INVALID, Verstat.NONE, "RFC 8225 §5", "a claim has the wrong type or shape")
    ATTEST_INVALID = Failure(438, _INVALID, Verstat.NONE, "RFC 8588 §4; E19", "attest is not A, B or C")
    DATE_MISSING = Failure(
        403, _STALE, Verstat.NONE, "RFC 8224 §6.2", "the compact form takes iat from the Date header, and there is none"
    )
    DATE_INVALID = Failure(403, _STALE, Verstat.NONE, "RFC 8224 §6.2 step 4", "the Date header cannot be read")
    DATE_STALE = Failure(
        403, _STALE, Verstat.NONE, "RFC 8224 §6.2 step 4; E3", "the Date header is outside the freshness window"
    )
    IAT_STALE = Failure(
        403, _STALE, Verstat.NONE, "RFC 8224 §6.2 step 4; E15", "iat is older than the freshness window"
    )
    IAT_IN_FUTURE = Failure(
        403, _STALE, Verstat.NONE, "RFC 8224 §6.2 step 4; E15", "iat lies further ahead than the freshness window"
    )
    ORIG_MISMATCH = Failure(
        438, _INVALID, Verstat.NONE, "RFC 8224 §6.2 step 2; E16", "orig is not the caller in the message"
    )
    CALLER_ANONYMOUS = Failure(
        438, _INVALID, Verstat.NONE, "RFC 8224 §11", "the caller withheld the number, orig has nothing to match"
    )
    DEST_MISMATCH = Failure(
        438, _INVALID, Verstat.NONE, "RFC 8224 §6.2 step 2; E16", "dest is not the called party in the message"
    )
    MKY_MISMATCH = Failure(
        438,
        _INVALID,
        Verstat.NONE,
        "RFC 8225 §5.2.2",
        "a fingerprint in the SDP is not among the media keys that were signed",
    )
    DIV_NOT_LINKED = Failure(
        438, _INVALID, Verstat.NONE, "RFC 8946 §4.2", "div is not the dest of an earlier valid PASSporT of the call"
    )
    DIV_ORIG_CHANGED = Failure(
        438, _INVALID, Verstat.NONE, "RFC 8946 §4.2", "orig changes along the div chain, which makes all of it invalid"
    )
    DIV_CHAIN_BROKEN = Failure(
        438,
        _INVALID,
        Verstat.NONE,
        "RFC 8946 §4.2",
        "the call was diverted from dest, and no valid div chain leads to where it goes",
    )
    DIV_NESTED_TOO_DEEP = Failure(
        438, _INVALID, Verstat.NONE, "RFC 8946 §5", "more PASSporTs are nested in opt than are looked at"
    )
    RPH_MISMATCH = Failure(
        438,
        _INVALID,
        Verstat.NONE,
        "RFC 8443 §4.2",
        "Resource-Priority is absent, or asks for a priority that was not signed",
    )
    SPH_INVALID = Failure(
        438,
        _INVALID,
        Verstat.NONE,
        "RFC 9027 §4",
        'sph is not "psap-callback", or comes without an rph of the namespace esnet',
    )
    SPH_MISMATCH = Failure(438, _INVALID, Verstat.NONE, "RFC 9027 §4", "the Priority header does not say what sph says")
    CERTIFICATE_MALFORMED = Failure(
        437, _UNSUPPORTED, Verstat.FAILED, "RFC 8226 §4; E17", "the certificate cannot be read"
    )
    CERTIFICATE_EXPIRED = Failure(
        437, _UNSUPPORTED, Verstat.FAILED, "RFC 5280 §6.1.3; E17", "a certificate of the chain has expired"
    )
    CERTIFICATE_NOT_YET_VALID = Failure(
        437, _UNSUPPORTED, Verstat.FAILED, "RFC 5280 §6.1.3; E17", "a certificate of the chain is not valid yet"
    )
    CERTIFICATE_NOT_VALID_AT_SIGNING = Failure(
        437,
        _UNSUPPORTED,
        Verstat.FAILED,
        "RFC 8224 §6.2 step 4; E17",
        "the certificate was not valid at the time in Date or iat",
    )
    CERTIFICATE_UNTRUSTED = Failure(
        437,
        _UNSUPPORTED,
        Verstat.FAILED,
        "RFC 5280 §6; E17",
        "the chain does not lead to a configured trust anchor",
    )
    CERTIFICATE_KEY_USAGE = Failure(
        437, _UNSUPPORTED, Verstat.FAILED, "ATIS-1000080 §6.4.1; E17", "the certificate may not sign PASSporTs"
    )
    CERTIFICATE_NO_TNAUTHLIST = Failure(
        437,
        _UNSUPPORTED,
        Verstat.FAILED,
        "RFC 8226 §9; E17",
        "the certificate has no TNAuthList, or one that cannot be read",
    )
    CERTIFICATE_SCOPE = Failure(
        437,
        _UNSUPPORTED,
        Verstat.FAILED,
        "RFC 8226 §9; E17",
        "the certificate's TNAuthList does not cover the number that was signed for",
    )
    CERTIFICATE_NOT_ENCOMPASSED = Failure(
        437,
        _UNSUPPORTED,
        Verstat.FAILED,
        "RFC 9060 §4; E17",
        "a delegate certificate's TNAuthList reaches beyond that of a certificate above it",
    )
    CERTIFICATE_CONSTRAINTS = Failure(
        437,
        _UNSUPPORTED,
        Verstat.FAILED,
        "RFC 8226 §8, RFC 9118 §6; E17",
        "the certificate's JWT claim constraints cannot be read, or it carries both kinds",
    )
    CERTIFICATE_REVOKED = Failure(
        437, _UNSUPPORTED, Verstat.FAILED, "RFC 5280 §6.3; E17", "a certificate of the chain has been revoked"
    )
    CERTIFICATE_REVOCATION_UNKNOWN = Failure(
        437,
        _UNSUPPORTED,
        Verstat.FAILED,
        "RFC 5280 §6.3; E17",
        "the revocation lists cannot be relied on now, and the settings demand that they can",
    )
    CLAIM_NOT_PERMITTED = Failure(
        438,
        _INVALID,
        Verstat.NONE,
        "RFC 8226 §8, RFC 9118 §3",
        "the claims break the JWT claim constraints of the signer's certificate",
    )
    SIGNATURE_INVALID = Failure(
        438, _INVALID, Verstat.FAILED, "RFC 8224 §6.2 step 5; E18", "the signature does not verify"
    )

    @property
    def code(self) -> str:
        """The stable machine-readable name, for instance ``iat_stale``."""
        return self.name.lower()

    @property
    def is_ours(self) -> bool:
        """Whether it is trouble of this host: then nothing is known against the signer."""
        return self in {FailureCode.CERTIFICATE_NOT_YET, FailureCode.TRUST_LIST_UNAVAILABLE}


class SkipReason(Enum):
    """Why a call went on without an Identity header of ours, or was refused."""

    NOT_INITIAL_INVITE = "only initial INVITEs are signed"
    SIGNING_OFF = "signing is switched off in the settings"
    ALREADY_SIGNED = "the call already carries an Identity header"
    CALLER_MISSING = "no caller identity in the configured headers"
    CALLER_AMBIGUOUS = "the headers name two different callers, and which one a telephone shows is luck"
    CALLED_MISSING = "the To header names nobody that can be signed for"
    CALLER_ANONYMOUS = "the caller is anonymous.invalid, which nobody can sign for (RFC 8224 §11)"
    DATE_STALE = "the Date header is outside the freshness window (RFC 8224 §6.1 step 3)"
    DATE_INVALID = "the Date header cannot be read"
    NO_CREDENTIAL = "no credential is configured for this customer"
    CREDENTIAL_NOT_VALID = "no certificate of the credential is valid at this time"
    CREDENTIAL_SCOPE = "the credential's TNAuthList does not cover the number it would speak for (RFC 8224 §6.1 step 1)"
    SIGNER_FAILED = "the private key could not be used"
    DIVERSION_NOT_OURS = "by the records no verified customer of ours may use the diverting number (RFC 8946 §4.1)"
    DIVERSION_NO_ORIGINAL = "no PASSporT of this caller is for the diverting number, a div has nothing to go on from"
    DIVERSION_SIGNED = "a div for this diversion is there already"
    POLICY_UNSIGNED = "the decision from the records is not to sign"
    POLICY_REFUSED = "the decision from the records is to refuse the call"
    SUBSTITUTE_CHANGED = "the call has left with another caller ID, which it would not get any more; it keeps that"
    STORE_UNAVAILABLE = "the policy store cannot be read"
    LIMITS_UNAVAILABLE = "nobody counts the customer's calls now, and the settings want them refused then"
    INTERNAL_ERROR = "an unexpected fault inside the plugin"

    @property
    def code(self) -> str:
        """The stable machine-readable name, for instance ``already_signed``."""
        return self.name.lower()


class ShakenError(Exception):
    """Root of all exceptions this package raises on purpose."""


class VerificationFailure(ShakenError):
    """A check on a received Identity header failed.

    ``detail`` may quote the wire and is therefore sanitised and cut by whoever prints it.
    """

    def __init__(self, code: FailureCode, detail: str = "") -> None:
        super().__init__(f"{code.code}: {detail or code.value.meaning}")
        self.code = code
        self.detail = detail


class NumberError(ShakenError, ValueError):
    """A text is not a telephone number (RFC 8224 §8.3)."""


class SipSyntaxError(ShakenError, ValueError):
    """A SIP header, URI or message cannot be parsed (RFC 3261 §25)."""


class CredentialError(ShakenError):
    """A key, certificate or chain of our own cannot be used; the text says which and why."""


class SigningError(ShakenError):
    """The `Signer` could not sign."""


class RevocationListError(ShakenError):
    """A certificate revocation list is not taken; the text says what is wrong with it."""


class RevocationListUntrusted(RevocationListError):
    """Nobody signed it who may."""


class TrustListError(ShakenError):
    """A signed list of trust anchors is not taken; the text says what is wrong with it."""


class StoreUnavailable(ShakenError):
    """The policy store cannot be read just now."""


class StoreError(ShakenError):
    """The policy store holds something this version cannot use."""


class StoreChanged(StoreError):
    """The policy was changed otherwise since files were put in force, and they do not say so."""


class ConflictError(ShakenError):
    """A change of the policy contradicts a record that is there."""


class Problem(NamedTuple):
    """One mistake in a file: where it stands and what is wrong."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class FileProblems(ShakenError):
    """A settings or policy file is refused as a whole; ``problems`` lists every mistake."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems

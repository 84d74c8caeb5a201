"""The settings file: its schema, and reading it.

Field docstrings are the documentation: they become the descriptions of the JSON Schema that
editors complete from, and ``docs/reference.md``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from shaken_plugin.authentication import ExistingIdentity, OrigidScope, StaleDate, StoreDown
from shaken_plugin.config import yamlfile
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.config.models import Matching, Name, Section, Switch, present, salvage, validate
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.verification import VerstatProfile
from shaken_plugin.errors import FailureCode, FileProblems, Problem

DEFAULT_PATH: Final = "/etc/shaken/shaken.yaml"
PATH_VARIABLE: Final = "SHAKEN_SETTINGS"
"""Environment variable that names the settings file, for the switch and the command line."""


def settings_path() -> Path:
    """The settings file to use where none is named."""
    return Path(os.environ.get(PATH_VARIABLE) or DEFAULT_PATH)


def moment(value: object) -> object:
    """POSIX seconds from ISO 8601 text, UTC unless it says otherwise; other types as they are."""
    if not isinstance(value, str):
        return value
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("not a time such as 2026-12-31 or 2026-12-31T08:00:00-05:00") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _country(value: str) -> str:
    dial_plan(value)
    return value


def _uuid(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError("not a UUID such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8") from None


Country = Annotated[str, AfterValidator(_country)]
Reference = Annotated[
    str,
    # Not "-----": who writes the key itself behind "file:" shall not read it in an error.
    Matching(
        r"(file:(?!.*-----).+|env:[A-Za-z_][A-Za-z0-9_]*)",
        "a key or certificate is given by reference: file:PATH or env:NAME",
    ),
]
Digits = Annotated[
    str,
    Matching(r"\+?[0-9]{1,15}", "not digits, with or without +"),
    AfterValidator(lambda value: value.removeprefix("+")),
]
Url = Annotated[str, Matching(r"[\x21-\x7e]{1,1024}", "not a URL")]
Spc = Annotated[str, Matching(r"[0-9A-Z]{1,16}", "not a Service Provider Code: digits and capital letters")]
Phrase = Annotated[
    str, Matching(r"[A-Za-z0-9 .,'-]{1,60}", "not a reason phrase: letters, digits, space, . , ' - and at most 60")
]
UuidText = Annotated[str, AfterValidator(_uuid)]
Seconds = Annotated[int, Field(ge=1, le=3600)]
Moment = Annotated[float, BeforeValidator(moment), WithJsonSchema({"type": ["string", "number"]})]
Mode = Literal["active", "observe", "off"]

STIR_STATUSES: Final = tuple(sorted({code.value.status for code in FailureCode}))
"""Statuses by which a verification service may answer a call (RFC 8224 §6.2.2)."""


def _stir_status(value: int) -> int:
    if value not in STIR_STATUSES:
        raise ValueError(f"not one of {', '.join(map(str, STIR_STATUSES))}")
    return value


StirStatus = Annotated[int, AfterValidator(_stir_status), Field(json_schema_extra={"enum": list(STIR_STATUSES)})]


class StoreSettings(Section):
    """The local policy store."""

    path: str = "/var/lib/shaken/policy.db"
    """The SQLite file that 'shaken apply' writes and the switch reads; on a local disk."""
    when_unavailable: StoreDown = StoreDown.LAST_KNOWN
    """What happens to calls while it cannot be read: last_known, unsigned or refuse."""


class PairSettings(Section):
    """A key, its certificate chain, and where the chain is published."""

    key: Reference
    """The private key (P-256, PEM or DER) by reference: file:PATH or env:NAME, never itself."""
    chain: Reference
    """The certificate chain, signer first: file:PATH or env:NAME."""
    x5u: Url
    """The URL at which verifiers find the chain. Every pair needs its own."""
    live_from: Moment = 0.0
    """When this pair starts to sign, for instance 2026-12-01T06:00:00Z; all workers switch then."""


class CredentialSettings(Section):
    """A named identity to sign with."""

    name: Name
    """How customers, trunks and gateways refer to it. The first credential is the default."""
    spc: Spc | None = None
    """The Service Provider Code its certificates must carry; none for certificates with numbers."""
    pairs: Annotated[list[PairSettings], Field(min_length=1)]
    """The present pair of key and certificate, and those that lie ready."""


class OrigidSettings(Section):
    """The origid claim, by which traceback groups calls."""

    per: OrigidScope = OrigidScope.TRUNK
    """One stable UUID per trunk or per customer, or a random one per call."""
    namespace: UuidText | None = None
    """UUID from which stable origids derive; by default from the first credential's SPC."""


class SigningSettings(Section):
    """The authentication service (STI-AS)."""

    mode: Mode = "active"
    """active; observe: decide, sign and log, but change nothing on the wire; off."""
    credentials: list[CredentialSettings] = []
    """What to sign with."""
    sources: Annotated[list[CallerHeader], Field(min_length=1)] = [CallerHeader.ASSERTED, CallerHeader.FROM]
    """Headers asked for the caller, in this order."""
    existing_identity: ExistingIdentity = ExistingIdentity.SKIP
    """A call that already carries Identity: skip (keep, do not sign), add (keep, add ours), or
    replace_ours (replace those that point to our own certificates, skip foreign ones)."""
    stale_date: StaleDate = StaleDate.LEAVE
    """A Date outside the freshness window: leave (do not sign), or replace (customers' calls)."""
    freshness: Seconds = 60
    """Seconds by which a Date may differ from our clock (RFC 8224 recommends 60)."""
    unknown_source: Literal["unsigned", "refuse"] = "unsigned"
    """A call that comes over no known trunk or gateway: unsigned or refuse. Never C."""
    pending_customer: Literal["B", "C", "unsigned", "refuse"] = "unsigned"
    """The best a customer gets whose know-your-customer is not complete."""
    sign_international: Switch = True
    """Whether calls to other country codes are signed."""
    leave_alone: list[Digits] = []
    """Prefixes of called numbers whose calls are not signed, for instance "+1876"."""
    origid: OrigidSettings = OrigidSettings()
    """The origid claim."""
    resign_after: Seconds = 30
    """Seconds after which a failover branch is signed anew instead of carrying the same token."""
    quote_ppt: Switch = True
    """Send ppt="shaken" rather than ppt=shaken."""
    mky: Switch = True
    """Sign the media keys of SDP with a=fingerprint (RFC 8224 §4.1); off where a media relay
    behind the signer changes them."""
    refuse_status: Annotated[int, Field(ge=400, le=599)] = 403
    """Status of the answer to a refused call, 400 to 599; 603 is for blocking by analytics alone."""
    refuse_phrase: Phrase = "Caller ID Not Authorised"
    """Reason phrase of that answer."""


class VerificationSettings(Section):
    """The verification service (STI-VS)."""

    mode: Mode = "active"
    """active; observe: verify and log, but change nothing on the wire; off."""
    trust_anchors: list[Reference] = []
    """PEM files with the roots of the STI-PA's list. Without any there is no start."""
    certificates: str = "/var/lib/shaken/certificates"
    """Folder in which signers' certificate documents lie, named by the SHA-256 of their x5u."""
    freshness: Seconds = 60
    """Seconds by which Date and iat may differ from our clock, in both directions."""
    verstat: VerstatProfile = VerstatProfile.ATIS1000082
    """atis1000082: the table of that standard; strict: every failure is TN-Validation-Failed."""
    verstat_level: Switch = False
    """Append the level: TN-Validation-Passed-A."""
    add_asserted: Switch = True
    """Add a P-Asserted-Identity with verstat to calls that have none (inside a trusted domain)."""
    mark_from: Switch = False
    """Put verstat into From, too."""
    reject: list[StirStatus] = []
    """Verification failures that are answered instead of passed on. 428 demands an Identity."""
    reason: Switch = True
    """Report failures to the sender in a Reason header (RFC 9410)."""
    lab_hosts: list[str] = []
    """Hosts, or host:port, whose certificate URLs may have other ports and private addresses."""


class LogSettings(Section):
    """The plugin's log lines in the switch's log."""

    full_numbers: Switch = False
    """Write telephone numbers in full instead of masked."""
    trace: Switch = False
    """Write the trace of every decision, not only of calls that got less than A."""


class Settings(Section):
    """Settings of shaken-plugin on one host."""

    country: Country = "US"
    """Country whose dial plan turns dialled numbers into E.164."""
    numeric_users: Switch = True
    """Take a sip: user that reads as a number for one even without user=phone."""
    emergency_numbers: list[Digits] = []
    """Emergency numbers beside those of the country, 911, 112 and 933."""
    policy: str | None = "policy.yaml"
    """The policy file, relative to this one."""
    on_fault: Literal["continue", "refuse"] = "continue"
    """What happens to a call when the plugin itself fails: it goes on, or is refused."""
    store: StoreSettings = StoreSettings()
    """The local policy store."""
    signing: SigningSettings
    """Outbound calls."""
    verification: VerificationSettings
    """Inbound calls."""
    log: LogSettings = LogSettings()
    """Log lines."""


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        FileProblems: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as exc:
        raise FileProblems([Problem(str(path), 1, 1, "", f"not UTF-8 text (byte {exc.start})")]) from exc
    except OSError as exc:
        raise FileProblems([Problem(str(path), 1, 1, "", f"cannot be read: {exc.strerror}")]) from exc


def parse_settings(path: Path) -> tuple[Settings | None, yamlfile.Document]:
    """A settings file: the settings, or None, and the document with all its problems.

    Relative paths become absolute, from the folder of the file.

    Raises:
        FileProblems: the file cannot be read.
    """
    document = yamlfile.parse(read_text(path), str(path))
    if not isinstance(document.data, dict):
        if not document.problems:
            document.problem((), "the file has no settings in it")
        return None, document
    _make_absolute(document.data, path.absolute().parent)
    settings = validate(Settings, document)
    _check_links(settings or sound_settings(document), document)
    document.problems.sort(key=lambda problem: (problem.line, problem.column))
    return (None if document.problems else settings), document


def _make_absolute(data: dict[str, Any], folder: Path) -> None:
    """Make relative paths absolute: what ``file:`` points to, and the three plain paths."""
    _absolute_references(data, folder)
    data.setdefault("policy", "policy.yaml")
    for section, name in ((data, "policy"), (data.get("store"), "path"), (data.get("verification"), "certificates")):
        if isinstance(section, dict) and isinstance(section.get(name), str):
            section[name] = str(folder / section[name])


def _absolute_references(data: Any, folder: Path) -> None:
    places = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(places):
        if isinstance(value, str) and value.startswith("file:") and value != "file:":
            data[key] = f"file:{folder / value.removeprefix('file:')}"
        else:
            _absolute_references(value, folder)


def _check_links(settings: Settings, document: yamlfile.Document) -> None:
    """What no field shows alone, of settings that may have other mistakes."""
    signing, verification = settings.signing, settings.verification
    if signing and signing.mode != "off" and signing.credentials == []:
        document.problem(("signing", "credentials"), "at least one is needed to sign (or set mode: off)")
    if verification and verification.mode != "off" and verification.trust_anchors == []:
        where = ("verification", "trust_anchors")
        document.problem(where, "without any nothing can be trusted (or set mode: off)")
    names = (((*place, "name"), credential.name) for place, credential in credentials_in(settings))
    _must_differ(names, document, "")
    # RFC 8224 §7.4: a new credential needs a new "info" URL, or verifiers that cached the old
    # document refuse the new signatures.
    urls = (((*place, "x5u"), pair.x5u) for place, _, pair in pairs_in(settings))
    _must_differ(urls, document, "; every pair needs its own URL")


def _must_differ(values: Iterable[tuple[yamlfile.Path, str]], document: yamlfile.Document, why: str) -> None:
    first: dict[str, yamlfile.Path] = {}
    for place, value in values:
        if value is not None and (other := first.setdefault(value, place)) is not place:
            document.problem(place, f"stands twice, first in line {document.places[other][0]}{why}")


def sound_settings(document: yamlfile.Document) -> Settings:
    """Of settings with mistakes what has none; see `models.salvage`.

    Lets all else be checked in the same pass.
    """
    return salvage(Settings, document.data if isinstance(document.data, dict) else {})  # type: ignore[no-any-return]  # Settings, with gaps


def credentials_in(settings: Settings) -> Iterator[tuple[yamlfile.Path, CredentialSettings]]:
    """The credentials of settings, also of `sound_settings`, each with its place."""
    for index, credential in present(settings.signing.credentials if settings.signing else None):
        yield ("signing", "credentials", index), credential


def pairs_in(settings: Settings) -> Iterator[tuple[yamlfile.Path, CredentialSettings, PairSettings]]:
    """The pairs of all credentials, likewise."""
    for place, credential in credentials_in(settings):
        for index, pair in present(credential.pairs):
            yield (*place, "pairs", index), credential, pair


def policy_file(document: yamlfile.Document) -> Path | None:
    """The policy file that settings name, also where other settings are wrong."""
    data = document.data if isinstance(document.data, dict) else {}
    name = data.get("policy")
    return Path(name) if isinstance(name, str) else None


def resolve(reference: str) -> bytes:
    """What a ``file:`` or ``env:`` reference points to.

    Raises:
        ValueError: it points to nothing. The text names the place, never the content.
    """
    kind, _, rest = reference.partition(":")
    if kind == "env":
        if rest not in os.environ:
            raise ValueError(f"the environment variable {rest} is not set")
        return os.environ[rest].encode("utf-8", "surrogateescape")
    try:
        return Path(rest).read_bytes()
    except OSError as exc:
        raise ValueError(f"{rest}: {exc.strerror}") from exc

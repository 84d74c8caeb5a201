"""The settings file: its schema.

Field docstrings are the documentation: they become the descriptions of the JSON Schema that
editors complete from, and ``docs/reference.md``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from shaken_plugin.authentication import DiversionMode, ExistingIdentity, OrigidScope, StaleDate, StoreDown
from shaken_plugin.config.fields import (
    Country,
    DaySeconds,
    Digits,
    Host,
    Mode,
    Moment,
    Phrase,
    Reference,
    RefusalStatus,
    Seconds,
    Spc,
    StirStatus,
    Url,
    UuidText,
)
from shaken_plugin.config.fleet import RedisSettings
from shaken_plugin.config.keys import KeysSettings
from shaken_plugin.config.limits import LimitsSettings
from shaken_plugin.config.models import Matching, Name, Section, Switch
from shaken_plugin.config.offences import OffencesSettings
from shaken_plugin.core.attestation import InvalidNumbers, Refusal
from shaken_plugin.core.call import CallerHeader
from shaken_plugin.core.records import Unauthorised
from shaken_plugin.core.verification import Profile, VerstatProfile


class StoreSettings(Section):
    """The local policy store."""

    path: str = "/var/lib/shaken/policy.db"
    """The SQLite file that 'shaken apply' writes and the switch reads; on a local disk."""
    state: str = "/var/lib/shaken/state.db"
    """The SQLite file of the runtime state: who is suspended, offences, warnings. By default beside path."""
    when_unavailable: StoreDown = StoreDown.LAST_KNOWN
    """What happens to calls while these cannot be read, or in a fleet are older than max_age: last_known, unsigned or
    refuse."""
    redis: RedisSettings | None = None
    """The Redis of a fleet, of whose policy path is then this host's copy; none: this host has a policy of its own."""
    max_age: Annotated[int, Field(ge=2, le=604_800)] = 300
    """Seconds since the copy was last known to be as Redis is, after which when_unavailable applies."""

    @model_validator(mode="before")
    @classmethod
    def _beside(cls, data: Any) -> Any:
        if isinstance(data, dict) and "state" not in data and isinstance(data.get("path"), str):
            return {**data, "state": str(Path(data["path"]).with_name("state.db"))}
        return data


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
    pairs: list[PairSettings] = []
    """The present pair of key and certificate, and those that lie ready; those of the store ('shaken key add') join
    them. Without any, here or there, there is no start."""


class OrigidSettings(Section):
    """The origid claim, by which traceback groups calls."""

    per: OrigidScope = OrigidScope.TRUNK
    """One stable UUID per trunk or per customer, or a random one per call."""
    namespace: UuidText | None = None
    """UUID from which stable origids derive; by default from the first credential's SPC."""


class SizeSettings(Section):
    """What happens when an INVITE grows too large for UDP by what we add."""

    threshold: Annotated[int, Field(ge=0, le=65_535)] = 1_300
    """Bytes that an INVITE may have with our headers when it leaves by UDP (RFC 3261 §18.1.1); 0: any number."""
    action: Literal["warn", "tcp", "shorten"] = "warn"
    """A larger one is always counted, and warned of once per trunk. warn: it is sent as it is; tcp: by
    TCP, and by UDP where that fails (in Kamailio with lines of its own) or where the peer takes no connection
    (FreeSWITCH; not by gateways, nor to names); shorten: without what verifiers can do without, if it then fits."""


class AnswerSettings(Section):
    """The answer to a call that is refused for one reason."""

    status: RefusalStatus | None = None
    """Status, 400 to 599; by default signing.refuse_status."""
    phrase: Phrase | None = None
    """Reason phrase; by default signing.refuse_phrase, else one that fits the reason."""


class AnswersSettings(Section):
    """Answers of their own to calls that are refused for different reasons."""

    suspended: AnswerSettings = AnswerSettings()
    """The customer is suspended; by default "Customer Suspended"."""
    terminated: AnswerSettings = AnswerSettings()
    """The customer's contract has ended; by default "Customer Terminated"."""
    do_not_originate: AnswerSettings = AnswerSettings()
    """The caller ID is on the do-not-originate list, or is none; by default "Caller ID Must Not Originate Calls"."""
    unauthorised: AnswerSettings = AnswerSettings()
    """The customer has no right to the caller ID; by default "Caller ID Not Authorised"."""
    unknown_source: AnswerSettings = AnswerSettings()
    """The call came over no known trunk or gateway; by default "Source Not Known"."""
    pending: AnswerSettings = AnswerSettings()
    """Know-your-customer is not complete; by default "Customer Not Verified"."""


_PHRASES: Final = {
    Refusal.SUSPENDED: "Customer Suspended",
    Refusal.TERMINATED: "Customer Terminated",
    Refusal.DO_NOT_ORIGINATE: "Caller ID Must Not Originate Calls",
    Refusal.UNAUTHORISED: "Caller ID Not Authorised",
    Refusal.UNKNOWN_SOURCE: "Source Not Known",
    Refusal.PENDING: "Customer Not Verified",
}


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
    diversion: DiversionMode = DiversionMode.SIGN
    """A call with Identity that is sent on: sign (keep it, and add a div PASSporT of RFC 8946 where a verified
    customer has a documented right to the diverting number), or leave (add none)."""
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
    substitute_in: Annotated[list[Literal["asserted", "from"]], Field(min_length=1)] = ["asserted", "from"]
    """Where a call whose caller ID is substituted says the other number: P-Asserted-Identity, From or both. A
    P-Asserted-Identity that is not named here goes; a From that is not goes on showing the number of before."""
    substitute_host: Host | None = None
    """Host of the addresses that are written then; by default the one that stands there."""
    resign_after: Seconds = 30
    """Seconds after which a failover branch is signed anew instead of carrying the same token."""
    quote_ppt: Switch = True
    """Send ppt="shaken" rather than ppt=shaken."""
    mky: Switch = True
    """Sign the media keys of SDP with a=fingerprint (RFC 8224 §4.1); off where a media relay
    behind the signer changes them."""
    size: SizeSettings = SizeSettings()
    """INVITEs that grow too large for UDP."""
    unauthorised: Unauthorised = Unauthorised.DOWNGRADE
    """A caller ID for which the customer has no record of any kind: downgrade (B at most), refuse, or substitute
    (it goes on with the number of 'substitute'). Routes, customers and trunks may say otherwise."""
    substitute: Digits | None = None
    """The number, in E.164, that takes the place of an unauthorised one."""
    invalid_numbers: InvalidNumbers = InvalidNumbers.REFUSE
    """A caller ID that no numbering plan knows, and to which there is no documented right: refuse, downgrade
    (B at most), or ignore (do not look). The do-not-originate list refuses whatever this says."""
    require_approval: Switch = False
    """Whether letters, delegate certificates, ported and toll-free numbers give A only once somebody has
    approved them."""
    refuse_status: RefusalStatus = 403
    """Status of the answer to a refused call, 400 to 599; 603 is for blocking by analytics alone."""
    refuse_phrase: Phrase | None = None
    """Reason phrase of that answer; by default one that fits the reason."""
    answers: AnswersSettings = AnswersSettings()
    """Answers of their own for different reasons."""

    @model_validator(mode="after")
    def _has_substitute(self) -> Self:
        # Of the settings alone: with records that name one it would do, but not for whoever has no record.
        if self.unauthorised is Unauthorised.SUBSTITUTE and self.substitute is None:
            raise ValueError("unauthorised: substitute needs a number in substitute")
        return self

    def answer(self, refusal: Refusal | None) -> tuple[int, str]:
        """Status and reason phrase for a call that the records refuse, whatever its customer's limits say.

        Args:
            refusal: why; None where no record says.
        """
        own = AnswerSettings() if refusal is None else getattr(self.answers, refusal.value)
        phrase = own.phrase or self.refuse_phrase or _PHRASES[refusal or Refusal.UNAUTHORISED]
        return own.status or self.refuse_status, phrase


class RevocationSettings(Section):
    """The certificate revocation lists of a trust list."""

    urls: list[Url] = []
    """Where the lists lie; http is allowed, because a list is signed."""
    signers: list[Reference] = []
    """PEM files with the certificates that the lists must be signed by."""
    from_certificates: Switch = False
    """Also fetch the list that a certificate names, once its path has been validated."""


class TrustListSettings(Section):
    """A named list of trust anchors, for instance that of the United States or of Canada."""

    anchors: list[Reference] = []
    """PEM files with roots that are always believed."""
    url: Url | None = None
    """Where the list is published; the agent fetches it and keeps it fresh."""
    signers: list[Reference] = []
    """PEM files with the certificates that the list must be signed by, or issuers of what it carries in x5c."""
    unsigned: Switch = False
    """The URL has a plain PEM bundle, vouched for by TLS alone."""
    grace: Annotated[int, Field(ge=0, le=2_592_000)] = 86_400
    """Seconds beyond its end for which a list that cannot be renewed stays in force, with an alarm."""
    crl: RevocationSettings = RevocationSettings()
    """Its revocation lists."""


_LEDGER: Final = Matching(
    r"(?:sqlite:[^?#\x00-\x1f]+"
    r"|postgresql://(?:(?:(?!%3[Aa])[^:@/\s])*@)?[^@/\s]*/[^@/?\s]+(?:\?(?:{0}(?:&{0})*)?)?)".format(
        r"(?!password|sslpassword)[a-z_]+=[^&\s]*"
    ),
    "neither sqlite:PATH nor postgresql://USER@HOST/DATABASE?NAME=VALUE; a password belongs into ledger_password, "
    "by reference, and into no part of the URL",
)
"""What shows the settings, and every message about the ledger, has no secret to hide then."""
_ADDRESS: Final = Matching(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}", "not HOST:PORT")


class EslSettings(Section):
    """The functions for FreeSWITCHes without mod_python3: their application socket connects to the agent."""

    listen: Annotated[str, _ADDRESS] | None = None
    """Where the agent waits for the legs of calls, for instance 127.0.0.1:8086; none: nowhere."""


class AgentSettings(Section):
    """The daemon that downloads for all workers of this host: 'shaken agent'."""

    enabled: Switch = True
    """Whether workers ask it. Without it a certificate that is not at hand is not looked for."""
    socket: str = "/run/shaken/agent.sock"
    """The Unix socket on which it answers workers."""
    listen: Annotated[str, _ADDRESS] = "127.0.0.1:9464"
    """Where it serves /metrics and /health; port 0 is any that is free."""
    listen_anywhere: Switch = False
    """Allow addresses, for that and for esl.listen, which are not of this machine alone."""
    esl: EslSettings = EslSettings()
    """The functions for FreeSWITCHes without mod_python3."""
    ca_bundle: str | None = None
    """PEM file of the authorities that the repositories' TLS certificates lead to; the system's by default."""
    max_documents: Annotated[int, Field(ge=100, le=1_000_000)] = 20_000
    """Most certificate URLs kept; the least used are forgotten first."""
    max_bytes: Annotated[int, Field(ge=1_048_576, le=17_179_869_184)] = 268_435_456
    """Most octets of documents kept."""
    max_fetches: Annotated[int, Field(ge=1, le=1_024)] = 64
    """Most downloads at one time; further ones are turned away at once."""
    max_per_host: Annotated[int, Field(ge=1, le=1_024)] = 8
    """Most of them to one host."""
    keep_days: Annotated[int, Field(ge=1, le=366)] = 7
    """Days since the last call of a signer for which its certificate is kept fresh."""
    stale: Annotated[int, Field(ge=0, le=604_800)] = 86_400
    """Seconds beyond its freshness for which a certificate serves when it cannot be refreshed."""


class VerificationSettings(Section):
    """The verification service (STI-VS)."""

    mode: Mode = "active"
    """active; observe: verify and log, but change nothing on the wire; off."""
    trust_anchors: list[Reference] = []
    """PEM files with roots that are believed. Without any, and without trust_list, there is no start."""
    stored_anchors: Switch = False
    """Also believe the roots that the store has ('shaken anchors add'). Whoever may write to policy.db, in a fleet to
    Redis, can then vouch for every caller."""
    trust_list: Name | None = None
    """The trust list by whose anchors calls are verified, one of trust_lists."""
    revocation: Literal["off", "soft", "hard"] = "soft"
    """Revoked certificates are refused. When the revocation lists cannot be relied on: soft accepts
    with an alarm, hard fails the call, too; off does not look at them."""
    replay: Literal["off", "report", "enforce"] = "report"
    """A PASSporT that was used for another call before: report it, refuse it, or do not look."""
    cache: str = "/var/lib/shaken/certificates.sqlite"
    """The SQLite file that the agent fills and the switch reads; on a local disk."""
    certificates: str = "/var/lib/shaken/certificates"
    """Folder with certificate documents put there by hand, named by the SHA-256 of their x5u; it is
    looked at before the cache."""
    freshness: Seconds = 60
    """Seconds by which Date and iat may differ from our clock, in both directions."""
    inner_freshness: DaySeconds | None = None
    """Seconds by which PASSporTs of a call that was diverted since may be old; none: as freshness."""
    profile: Profile = Profile.SHAKEN
    """What vouches for the number. shaken: PASSporTs of that type; rfc8224: baseline ones without a type, too."""
    mky: Switch = True
    """Compare the fingerprints of the SDP with the media keys that were signed, where there are any."""
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
    replay_memory: str = "/var/lib/shaken/replay.memory"
    """The file in which all workers remember the PASSporTs of the last minute; on a local disk, or in memory."""
    wait: Annotated[float, Field(ge=0, le=10)] = 2.0
    """Seconds a call may wait for a signer's certificate that the agent is fetching; 0, or an agent that
    does not answer: none waits."""
    max_waiting: Annotated[int, Field(ge=1, le=1024)] = 8
    """Calls that may wait at the same time; further ones are "not yet" at once. In Kamailio as many
    as the task group "shaken" has workers."""
    lab_hosts: list[str] = []
    """Hosts, or host:port, whose certificate URLs may have other ports and private addresses."""


class RecordSettings(Section):
    """Records of calls: one of each signing and verification."""

    enabled: Switch = True
    """Whether they are kept."""
    folder: str = "/var/lib/shaken/calls"
    """The folder in which switches write them to files, until the agent moves them into the ledger; on a local disk."""
    rotate_bytes: Annotated[int, Field(ge=65_536, le=1_073_741_824)] = 16_777_216
    """Size of such a file, in octets, from which on the process begins another."""
    ledger: Annotated[str, _LEDGER] = "sqlite:/var/lib/shaken/ledger.db"
    """The database that keeps them: sqlite:PATH, or postgresql://USER@HOST/DATABASE, for which the library comes
    with shaken-plugin[postgresql]."""
    ledger_password: Reference | None = None
    """The password for PostgreSQL by reference: file:PATH or env:NAME, never itself."""
    keep_days: Annotated[int, Field(ge=1, le=3_660)] = 400
    """Days after which a record is removed from the ledger."""
    alarm_bytes: Annotated[int, Field(ge=1_048_576, le=1_099_511_627_776)] = 268_435_456
    """Size of all those files together, in octets, at which the agent raises an alarm."""


class FreeSwitchSettings(Section):
    """What concerns FreeSWITCH alone."""

    identity_name: Literal["auto", "full", "compact"] = "auto"
    """The name under which Identity headers that came are passed on. auto: the full one, and the compact
    one, y, for a call with a header that FreeSWITCH would otherwise damage; some peers do not know y."""


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
    keys: KeysSettings = KeysSettings()
    """Private keys in the store."""
    signing: SigningSettings
    """Outbound calls."""
    verification: VerificationSettings
    """Inbound calls."""
    trust_lists: dict[Name, TrustListSettings] = {}
    """Named trust lists; verification.trust_list chooses one, and the agent keeps that one fresh."""
    agent: AgentSettings = AgentSettings()
    """The daemon that downloads for all workers."""
    records: RecordSettings = RecordSettings()
    """Records of calls."""
    offences: OffencesSettings = OffencesSettings()
    """Unauthorised caller IDs, warnings, suspensions."""
    limits: LimitsSettings = LimitsSettings()
    """Calls over the limits of their customer."""
    freeswitch: FreeSwitchSettings = FreeSwitchSettings()
    """What concerns FreeSWITCH alone."""
    log: LogSettings = LogSettings()
    """Log lines."""

    def answer(self, refusal: Refusal | None) -> tuple[int, str]:
        """Status and reason phrase for a refused call.

        Args:
            refusal: why; None where no record says.
        """
        if refusal is Refusal.OVER_LIMIT:
            return self.limits.status, self.limits.phrase
        return self.signing.answer(refusal)

    @property
    def trust_list(self) -> TrustListSettings | None:
        """The trust list that is chosen."""
        return None if self.verification.trust_list is None else self.trust_lists[self.verification.trust_list]

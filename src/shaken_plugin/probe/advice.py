"""What to change in known products, by what was found.

`TRIED` advice was tried with real calls by this project; `DOCUMENTED` stands in the product's own
documents and was not. Where nothing is known, nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from shaken_plugin.probe.findings import Grade, Kind, Verdict


class Source(Enum):
    """How an advice is known."""

    TRIED = "tried with real calls"
    DOCUMENTED = "by its documents, not tried"
    STANDARD = "by the standard"


class Advice(NamedTuple):
    """One thing to change."""

    kind: Kind
    text: str
    source: Source


class Product(NamedTuple):
    """A switch, and how it calls itself in User-Agent or Server."""

    name: str
    pattern: re.Pattern[str]
    advice: tuple[Advice, ...]


_TRIED, _DOCUMENTED, _STANDARD = Source.TRIED, Source.DOCUMENTED, Source.STANDARD

_PASS: Final = "; shaken::pass_through of this plugin, before the bridge, does it"

FREESWITCH: Final = Product(
    "FreeSWITCH",
    re.compile("freeswitch", re.IGNORECASE),
    (
        Advice(
            Kind.DUPLICATED,
            "the B leg carries it once as Identity of its own and once as sip_h_identity; keep one: "
            "export nolocal:exclude_outgoing_extra_header=(?i)^sip_h_identity$" + _PASS,
            _TRIED,
        ),
        Advice(
            Kind.FIRST_ONLY,
            "only the first of several reaches the B leg; all are in sip_identity (ARRAY::a|:b): unset "
            'sip_h_identity, then set "sip_h_Identity " and "sip_h_Identity  " (one more trailing space each)' + _PASS,
            _TRIED,
        ),
        Advice(
            Kind.ALTERED,
            "it writes Identity anew as digest;info;alg;ppt and what stood behind them; parameters between them are "
            "lost, and info where its URL has parameters of its own; send the value under the compact name, sip_h_y, "
            "which it leaves alone; some peers do not know that name" + _PASS,
            _TRIED,
        ),
        Advice(
            Kind.RESPELLED,
            "it writes Identity anew as digest;info;alg;ppt; under the compact name, sip_h_y, it does not",
            _TRIED,
        ),
        Advice(
            Kind.STRIPPED,
            "sip_copy_custom_headers=false drops it, and what is set before the bridge; set it on the leaving leg: "
            "export nolocal:execute_on_originate_pass=python shaken::pass_through",
            _TRIED,
        ),
        Advice(
            Kind.STRIPPED,
            "a header that came under the compact name y is not forwarded at all: read it from sip_i_y (profile "
            "parameter parse-all-invite-headers=true) and set sip_h_y" + _PASS,
            _TRIED,
        ),
        Advice(
            Kind.DATE_CHANGED,
            "an inbound Date is not forwarded; set sip_h_Date from sip_date_epoch_time to send one" + _PASS,
            _TRIED,
        ),
        Advice(
            Kind.NUMBER_REWRITTEN,
            "the P-Asserted-Identity user replaces that of From on the B leg; and the dialplan may set "
            "effective_caller_id_number: sign after that, or leave the number alone",
            _TRIED,
        ),
        Advice(
            Kind.REFUSED,
            "480 for a call without SDP: set the profile parameter enable-3pcc=true",
            _TRIED,
        ),
        Advice(
            Kind.NOT_PASSED_ON,
            "it is a back-to-back user agent and ends re-INVITEs itself: verify where the call comes in",
            _TRIED,
        ),
    ),
)

KAMAILIO: Final = Product(
    "Kamailio",
    re.compile("kamailio", re.IGNORECASE),
    (
        Advice(
            Kind.STRIPPED,
            "a proxy keeps headers; look in the script for remove_hf, remove_hf_re or keep_hf, and for modules that "
            "take Identity out",
            _DOCUMENTED,
        ),
        Advice(
            Kind.DUPLICATED,
            "what the request route appends stays on all later branches; append Identity in the branch route, once",
            _TRIED,
        ),
        Advice(
            Kind.NUMBER_REWRITTEN,
            "numbers changed after signing ($rU, $fU, uac_replace_from, prefix strips): change them first, then sign",
            _STANDARD,
        ),
        Advice(
            Kind.LOST_BY_SIZE,
            "send long requests by TCP: udp_mtu = 1300 and udp_mtu_try_proto = TCP",
            _DOCUMENTED,
        ),
        Advice(Kind.FRAGMENTED, "send long requests by TCP: udp_mtu = 1300 and udp_mtu_try_proto = TCP", _DOCUMENTED),
    ),
)

_ASTERISK_COPY: Final = (
    "a back-to-back user agent that forwards no header by itself; read each with ${PJSIP_HEADER(read,Identity,n)} and "
    "add it in a pre-dial handler of Dial (option b) with PJSIP_HEADER(add,Identity)"
)

ASTERISK: Final = Product(
    "Asterisk",
    re.compile(r"asterisk|\bFPBX", re.IGNORECASE),
    (
        Advice(Kind.STRIPPED, _ASTERISK_COPY, _DOCUMENTED),
        Advice(
            Kind.FIRST_ONLY, _ASTERISK_COPY + "; the third argument of read is the number of the header", _DOCUMENTED
        ),
        Advice(
            Kind.ADDED,
            "res_pjsip_stir_shaken signs by itself where the endpoint has a stir_shaken_profile: use one signer only",
            _DOCUMENTED,
        ),
    ),
)

OPENSIPS: Final = Product(
    "OpenSIPS",
    re.compile("opensips", re.IGNORECASE),
    (
        Advice(
            Kind.STRIPPED,
            "as a proxy it keeps headers: look for remove_hf; as a B2BUA (b2b_logic) it passes on those named in "
            'modparam("b2b_logic", "custom_headers", "Identity")',
            _DOCUMENTED,
        ),
        Advice(
            Kind.NUMBER_REWRITTEN,
            "numbers changed after signing: change them first, then sign",
            _STANDARD,
        ),
    ),
)

PRODUCTS: Final = (FREESWITCH, KAMAILIO, ASTERISK, OPENSIPS)

ANY: Final = (
    Advice(
        Kind.LOST_BY_SIZE,
        "RFC 3261 §18.1.1: a request above 1300 bytes goes by TCP; use TCP or TLS on both legs, and a short x5u",
        _STANDARD,
    ),
    Advice(
        Kind.FRAGMENTED,
        "RFC 3261 §18.1.1: a request above 1300 bytes goes by TCP; firewalls and NAT drop fragments",
        _STANDARD,
    ),
    Advice(
        Kind.NUMBER_REWRITTEN,
        "the signature holds for the numbers in From or P-Asserted-Identity and in To or the Request-URI: leave them, "
        "or sign where they are final",
        _STANDARD,
    ),
    Advice(
        Kind.REORDERED,
        "the order carries no meaning (RFC 8224 §4), but peers that read one header read the first",
        _STANDARD,
    ),
    Advice(
        Kind.DATE_CHANGED, "a PASSporT in compact form cannot be verified without its Date (RFC 8224 §4.1)", _STANDARD
    ),
    Advice(
        Kind.RENAMED,
        "y and Identity mean the same (RFC 8224 §13.1); if a peer does not find the header, this is why",
        _STANDARD,
    ),
)
"""For every product, where it has none of its own."""


def product_of(server: str) -> Product | None:
    """The product that calls itself so, None where it is not known."""
    return next((product for product in PRODUCTS if product.pattern.search(server[:256])), None)


def by_name(name: str) -> Product | None:
    """The product of this name in any case, None where it is not known."""
    return next((product for product in PRODUCTS if product.name.lower() == name.lower()), None)


def advise(verdicts: Sequence[Verdict], product: Product | None = None) -> list[Advice]:
    """What to change, each once, in the order of what was found.

    Args:
        verdicts: of one PBX.
        product: what it is; None to go by what it says itself.
    """
    if product is None:
        product = next((found for verdict in verdicts if (found := product_of(verdict.server))), None)
    kinds = dict.fromkeys(
        finding.kind for verdict in verdicts for finding in verdict.findings if finding.kind.grade is not Grade.GOOD
    )
    given: list[Advice] = []
    for kind in kinds:
        own = [advice for advice in product.advice if advice.kind is kind] if product else []
        given += own or [advice for advice in ANY if advice.kind is kind]
    return given

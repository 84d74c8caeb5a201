"""``shaken anchors``: roots in the store, which verifiers believe beside those of their settings, if these say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click
from cryptography import x509

from shaken_plugin.cli.material import Name, Reference, changing, fingerprint, pem, refuse
from shaken_plugin.cli.output import console, errors, json_option, print_json, settings_option, table, when
from shaken_plugin.cli.records.session import Intent, intends, reading
from shaken_plugin.core.certificates import TrustAnchors, parse_anchor_file
from shaken_plugin.core.material import StoredAnchors
from shaken_plugin.errors import VerificationFailure

_UNBELIEVED: Final = (
    "this host does not believe the trust anchors of the store: verification.stored_anchors is false in its settings"
)


@click.group("anchors")
def anchors() -> None:
    """Trust anchors in the store: verifiers whose settings say so (verification.stored_anchors) believe them."""


@anchors.command("add")
@click.argument("name", type=Name())
@click.option("--file", "content", required=True, type=Reference(), metavar="REF", help="Roots in PEM: file:PATH.")
@click.option("--replace", is_flag=True, help="In the place of those with this name.")
@intends
def add(intent: Intent, name: str, content: bytes, replace: bool) -> None:
    """Have verifiers of the store believe these roots, too, within a second."""
    try:
        found = parse_anchor_file(content)
        TrustAnchors(found)
    except VerificationFailure as failure:
        refuse(f"trust anchors {name}: {failure.detail}")
    with changing(intent, f"trust anchors {name} {'replaced' if replace else 'added'}: {len(found)}") as edit:
        there = edit.find(StoredAnchors, name) is not None
        if there and not replace:
            refuse(f"there are trust anchors {name} already; --replace puts these in their place")
        edit.draft.put_material(StoredAnchors(name, pem(found)))
        edit.done.append(("anchors", name, "replaced" if there else "added"))
        if not edit.session.settings.verification.stored_anchors:
            edit.notes.append(_UNBELIEVED)


@anchors.command("remove")
@click.argument("name", type=Name())
@intends
def remove(intent: Intent, name: str) -> None:
    """Take trust anchors out of the store; calls of signers below them do not pass any more."""
    with changing(intent, f"trust anchors {name} removed") as edit:
        edit.draft.remove_material(StoredAnchors, name)
        edit.done.append(("anchors", name, "removed"))
        settings = edit.session.settings.verification
        left = any(isinstance(one, StoredAnchors) for one in edit.readable())
        if (
            settings.mode != "off"
            and settings.stored_anchors
            and not (left or settings.trust_anchors or settings.trust_list)
        ):
            edit.notes.append("no trust anchors are left: no call passes, and no switch starts until there are some")


@anchors.command("list")
@settings_option
@json_option
def list_(settings_file: Path, as_json: bool) -> None:
    """The trust anchors in the store; not those of the settings."""
    with reading(settings_file) as (session, records):
        rows = [row for one in records.material() if isinstance(one, StoredAnchors) for row in _rows(one)]
    if as_json:
        print_json({"anchors": rows})
        return
    shown = table("name", "subject", "valid until", "fingerprint")
    for row in rows:
        shown.add_row(row["name"], row["subject"], when(row["not_after"]), row["fingerprint"][:16])
    console.print(shown)
    if rows and not session.settings.verification.stored_anchors:
        errors.print(_UNBELIEVED, style="yellow", markup=False)


def _rows(stored: StoredAnchors) -> list[dict[str, Any]]:
    try:
        found = parse_anchor_file(stored.certificates.encode("ascii", "replace"))
    except VerificationFailure as failure:
        return [{"name": stored.name, "subject": f"damaged: {failure.detail}", "not_after": None, "fingerprint": ""}]
    return [_one(stored.name, certificate) for certificate in found]


def _one(name: str, certificate: x509.Certificate) -> dict[str, Any]:
    return {
        "name": name,
        "subject": certificate.subject.rfc4514_string(),
        "not_after": certificate.not_valid_after_utc.timestamp(),
        "fingerprint": fingerprint(certificate),
    }

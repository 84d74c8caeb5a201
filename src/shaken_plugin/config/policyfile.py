"""The policy file: customers, trunks, gateways, who may use which numbers, and what differs for whom.

    customers:
      - id: acme
        name: Acme Contact Centre
        state: verified
        trunks:
          - id: acme-main
            addresses: [198.51.100.0/24]
    gateways:
      - id: intl
        name: International gateway
        addresses: [203.0.113.7]
    rights:
      - customer: acme
        basis: letter
        document: LOA-2026-113
        use_case: appointment reminders for Example Clinic
        valid_until: 2027-06-30
        numbers: ["+12155551212", "+12155551300..+12155551399"]

All of it is in docs/policy-example.yaml. A day as ``valid_from`` begins at 00:00 UTC, as ``valid_until`` it is the
last day, ending at 24:00 UTC; a time with an offset is taken exactly.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from shaken_plugin.config import yamlfile
from shaken_plugin.config.models import salvage, validate
from shaken_plugin.config.policybuilder import Builder
from shaken_plugin.config.policyentries import PolicyFile
from shaken_plugin.config.settings import read_text
from shaken_plugin.stores.policy import Policy


def parse_policy(
    path: Path,
    credentials: frozenset[str] | None = None,
    *,
    customers: Collection[str] = (),
    routes: Collection[str] = (),
) -> tuple[Policy | None, yamlfile.Document]:
    """A policy file: the policy, or None, and the document with all its problems.

    Args:
        path: the file.
        credentials: names that the settings know; None to leave the names unchecked.
        customers: ids of customers that the file may name though they do not stand in it.
        routes: likewise of routes.

    Raises:
        FileProblems: the file cannot be read.
    """
    document = yamlfile.parse(read_text(path), str(path))
    if document.data is None and not document.problems:
        # More likely a full disk than a wish: with no records every call would go on unsigned.
        document.problem((), "the file has no records in it")
    file = validate(PolicyFile, document)
    if file is None:
        # Entries with gaps: a mistake hides no other, in its own entry neither.
        file = salvage(PolicyFile, document.data)
    builder = Builder(document, credentials)
    if file is not None:
        builder.add(file)
    _check_links(document, customers, routes)
    document.problems.sort(key=lambda problem: (problem.line, problem.column))
    return (None if document.problems else builder.policy()), document


def _check_links(document: yamlfile.Document, customers: Collection[str], routes: Collection[str]) -> None:
    """What an entry names stands in the file, with or without other mistakes."""
    known = {
        "customer": {str(entry.get("id")) for _, entry in _mappings(document, "customers")} | set(customers),
        "route": {str(entry.get("id")) for _, entry in _mappings(document, "routes")} | set(routes),
    }
    for section in ("rights", "substitutions"):
        for index, entry in _mappings(document, section):
            _check_link(document, (section, index, "customer"), "customer", entry.get("customer"), known["customer"])
    for index, entry in _mappings(document, "substitutions"):
        named = entry.get("routes")
        for place, name in enumerate(named if isinstance(named, list) else []):
            _check_link(document, ("substitutions", index, "routes", place), "route", name, known["route"])


def _check_link(document: yamlfile.Document, path: yamlfile.Path, kind: str, name: object, known: set[str]) -> None:
    if isinstance(name, str) and name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        document.problem(path, f"there is no {kind} {name}{hint}")


def _mappings(document: yamlfile.Document, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = document.data.get(name) if isinstance(document.data, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield index, entry

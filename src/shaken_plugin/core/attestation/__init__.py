"""The attestation decision: one pure function of the call, the records and the time.

ATIS-1000074 §5.2.3: A (full) when the provider authenticated the customer and knows their right
to the number, B (partial) when it knows the customer only, C (gateway) when the call entered
through a gateway. The provider itself must make this decision (FCC 24-120).

`RULES` is the whole rule set, in order. A call starts at A; each rule reports whether it held, on
which record, what is missing for a better level, and may bring the level down, never up. Only a
refusal, and what leaves nothing more to ask, ends the list: so no rule can spare a call the refusal
of another, and everything that is missing is told at once. The reports of all rules asked are the
trace: the answer to "why did this call get B?". All of it for people: docs/attestation.md.

Read `decision` (the terms), `rules` (the table), then what it asks: `inheritance` (which record
decides), `rights`, `substitution`; `changes` looks ahead.
"""

from shaken_plugin.core.attestation.changes import changes_between, facts_hold_until
from shaken_plugin.core.attestation.decision import (
    WITHOUT_RECORD,
    AttestationPolicy,
    CallFacts,
    Case,
    Decision,
    Finding,
    InvalidNumbers,
    Level,
    Numbering,
    Refusal,
    Rule,
    Step,
    judge,
)
from shaken_plugin.core.attestation.rights import DOCUMENTED, Lack, in_force, is_documented, lacks, names_nothing
from shaken_plugin.core.attestation.rules import RULES, decide, decide_beside, decide_substitute
from shaken_plugin.core.attestation.source import left_alone, unsigned_destination
from shaken_plugin.core.attestation.substitution import is_open

__all__ = [
    "DOCUMENTED",
    "RULES",
    "WITHOUT_RECORD",
    "AttestationPolicy",
    "CallFacts",
    "Case",
    "Decision",
    "Finding",
    "InvalidNumbers",
    "Lack",
    "Level",
    "Numbering",
    "Refusal",
    "Rule",
    "Step",
    "changes_between",
    "decide",
    "decide_beside",
    "decide_substitute",
    "facts_hold_until",
    "in_force",
    "is_documented",
    "is_open",
    "judge",
    "lacks",
    "left_alone",
    "names_nothing",
    "unsigned_destination",
]

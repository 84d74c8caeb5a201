"""A whole switch side on a bench: services, observer and a clock that stands where it is put."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from shaken_plugin.authentication import SigningPair
from shaken_plugin.certs.memory import CertificateMemory
from shaken_plugin.config.sections import Settings
from shaken_plugin.core.call import CallMessage
from shaken_plugin.core.certificates import TrustAnchors
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.core.verification import VerificationRules
from shaken_plugin.lab.pki import Authority
from shaken_plugin.ports import PolicyStore, Severity
from shaken_plugin.runtime import Services
from shaken_plugin.switch import LeftAs, Outcome, Switch
from shaken_plugin.telemetry import MemoryObserver
from shaken_plugin.verification import VerificationService
from tests.conftest import NOW
from tests.services.builders import RANDOM_ORIGID, X5U, rules, service

_PAIR = {"key": "file:/k", "chain": "file:/c", "x5u": X5U}


def settings(**sections: Any) -> Settings:
    """Settings with both services on; a section given is put over the plain one."""
    plain: dict[str, Any] = {
        "signing": {"credentials": [{"name": "main", "pairs": [_PAIR]}]},
        "verification": {"trust_anchors": ["file:/a"]},
    }
    merged = {
        name: {**plain.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in (plain | sections).items()
    }
    return Settings.model_validate(merged)


@dataclass
class Bench:
    """A `Switch` and what it did."""

    switch: Switch
    observer: MemoryObserver
    source: CertificateMemory
    clock: list[float] = field(default_factory=lambda: [NOW])
    left_as: LeftAs | None = None

    @classmethod
    def make(
        cls,
        authority: Authority,
        *pairs: SigningPair,
        store: PolicyStore | None = None,
        documents: dict[str, bytes] | None = None,
        choices: dict[str, Any] | None = None,
        **sections: Any,
    ) -> Bench:
        """A bench.

        Args:
            authority: the only trust anchor.
            pairs: of the default credential.
            store: the records, by default those of `builders.policy`.
            documents: certificate documents at hand.
            choices: changes of the signing rules.
            sections: settings.
        """
        chosen = settings(**sections)
        plan: DialPlan = rules().plan
        source = CertificateMemory(documents or {})
        signer = service(*pairs, store=store, **(choices or {}))
        verifier = VerificationService(VerificationRules(plan), TrustAnchors([authority.root]), source)
        services = Services(
            chosen,
            plan,
            None if chosen.signing.mode == "off" else signer,
            None if chosen.verification.mode == "off" else verifier,
            {},
        )
        observer, clock = MemoryObserver(), [NOW]
        return cls(Switch(services, observer, lambda: clock[0], lambda: RANDOM_ORIGID), observer, source, clock)

    def sign(self, message: CallMessage) -> Outcome:
        """`Switch.sign` of a message that could be read."""
        return self.switch.sign(lambda: message, left_as=self.left_as)

    def verify(self, message: CallMessage) -> Outcome:
        """`Switch.verify` of a message that could be read."""
        return self.switch.verify(lambda: message)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The structured log lines of one kind; every one must be valid JSON."""
        found = []
        for _, line in self.observer.lines:
            if line.startswith("shaken {"):
                fields: dict[str, Any] = json.loads(line.removeprefix("shaken "))
                if fields["event"] == name:
                    found.append(fields)
        return found

    def lines(self, severity: Severity) -> list[str]:
        """The log lines of one severity."""
        return [text for found, text in self.observer.lines if found is severity]

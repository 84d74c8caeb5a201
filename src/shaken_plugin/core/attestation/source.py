"""The rules about where a call comes from and goes to: source, customer, destination, ceilings."""

from __future__ import annotations

from shaken_plugin.core.attestation.decision import AttestationPolicy, Case, Finding, Level, Refusal, Scope
from shaken_plugin.core.attestation.inheritance import ceilings, chosen
from shaken_plugin.core.records import CarrierStatus, CustomerKind, CustomerState, Gateway, PendingLevel
from shaken_plugin.core.telephone import Party, TelephoneNumber


def source_rule(case: Case) -> Finding:
    """Whether we know the trunk or gateway."""
    source = case.facts.source
    if source is None:
        refused = case.policy.unknown_source is Level.REFUSE
        return Finding(
            False,
            "the call comes from no trunk or gateway we know",
            at_most=case.policy.unknown_source,
            missing="a customer's trunk, or a declared gateway, with this source address or user",
            settled=True,
            refusal=Refusal.UNKNOWN_SOURCE if refused else None,
        )
    kind = "gateway" if isinstance(source, Gateway) else "trunk"
    return Finding(True, f"the call came over a {kind} we know", f"{kind} {source.id}")


def customer_active_rule(case: Case) -> Finding:
    """Whether the customer is suspended or terminated."""
    if isinstance(case.facts.source, Gateway):
        return Finding(True, "a gateway has no customer")
    customer = case.customer
    record = f"customer {customer.id}"
    if customer.state in {CustomerState.SUSPENDED, CustomerState.TERMINATED}:
        return Finding(
            False,
            f"{customer.name} is {customer.state.value}",
            record,
            Level.REFUSE,
            "the customer reinstated",
            settled=True,
            refusal=Refusal(customer.state.value),
        )
    return Finding(True, f"{customer.name} is neither suspended nor terminated", record)


def customer_verified_rule(case: Case) -> Finding:
    """Whether know-your-customer is complete."""
    if isinstance(case.facts.source, Gateway):
        return Finding(True, "a gateway has no customer")
    customer = case.customer
    record = f"customer {customer.id}"
    if customer.state is not CustomerState.PENDING:
        return Finding(True, f"know-your-customer of {customer.name} is complete", record)
    pending, by = chosen(case.scopes, "pending")
    refused = pending is PendingLevel.REFUSE
    return Finding(
        False,
        f"know-your-customer of {customer.name} is not complete: {pending.value} by {by}",
        record,
        Level(pending.value),
        "a complete know-your-customer file",
        settled=refused,
        refusal=Refusal.PENDING if refused else None,
    )


def kind_rule(case: Case) -> Finding:
    """Whether a customer of this kind may get A."""
    if isinstance(case.facts.source, Gateway):
        return Finding(True, "a gateway has no customer")
    customer = case.customer
    record = f"customer {customer.id}"
    if customer.kind is CustomerKind.GATEWAY:
        # ATIS-1000074 §5.2.3: its calls come from elsewhere, and nobody here knows who makes them.
        return Finding(
            False,
            f"{customer.name} hands in calls as a gateway: C at most",
            record,
            Level.C,
            "a customer of another kind",
        )
    if customer.kind is CustomerKind.WHOLESALE:
        carrier = customer.carrier or CarrierStatus()
        said = {"Form 499 Filer ID": carrier.form_499, "number in the Robocall Mitigation Database": carrier.rmd}
        lacks = " and ".join(f"a {name}" for name, value in said.items() if not value)
        if lacks:
            text = f"{customer.name} is a wholesale carrier without {lacks}: B at most"
            return Finding(False, text, record, Level.B, f"{lacks} of {customer.id}")
    return Finding(True, f"a customer of kind {customer.kind.value} may get A", record)


def destination_rule(case: Case) -> Finding:
    """Whether such calls are signed."""
    return _signs(case, case.scopes)


def unsigned_destination(case: Case) -> Finding:
    """Whether calls there are signed, whoever calls; ends the list where they are not."""
    finding = _signs(case, case.general_scopes)
    return finding._replace(settled=not finding.held)


def _signs(case: Case, among: tuple[Scope, ...]) -> Finding:
    if case.call.emergency:
        return Finding(True, "emergency calls are signed whatever their destination")
    signs, by = chosen(among, "sign")
    if signs is not None:
        text = f"such calls are {'signed' if signs else 'left unsigned'} by {by}"
        return Finding(signs, text, by, Level.A if signs else Level.UNSIGNED)
    alone = left_alone(case.call.dest, case.policy)
    if alone is not None:
        return Finding(False, alone, at_most=Level.UNSIGNED)
    return Finding(True, "calls to this destination are signed")


def left_alone(dest: Party | None, policy: AttestationPolicy) -> str | None:
    """Why the settings leave calls to a party alone, None where they do not: all that the rules ask of the called."""
    if isinstance(dest, TelephoneNumber):
        for prefix in policy.leave_alone:
            if dest.digits.startswith(prefix):
                return f"calls to {prefix}… are left alone"
        abroad = dest.is_e164 and not dest.digits.startswith(policy.home_country_code)
        if abroad and not policy.sign_international:
            return "international calls are left alone"
    return None


def gateway_rule(case: Case) -> Finding:
    """Whether it is a customer's call, not a gateway's."""
    source = case.facts.source
    if isinstance(source, Gateway):
        return Finding(
            False,
            f"it enters the network at the gateway {source.name}",
            f"gateway {source.id}",
            Level.C,
            "calls over a gateway have no customer; A and B need a customer's trunk",
            settled=True,
        )
    return Finding(True, "the source is a customer's trunk, not a gateway")


def ceiling_rule(case: Case) -> Finding:
    """Whether a ceiling stands against A."""
    below = ceilings(case)
    if not below:
        return Finding(True, "no ceiling below A", f"customer {case.customer.id}")
    lowest, by = below[0]
    names = " and ".join(name for _, name in below)
    return Finding(
        False, f"{lowest.value} at most by {by}", by, Level(lowest.value), f"a higher attestation ceiling for {names}"
    )

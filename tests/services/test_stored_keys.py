"""Keys and trust anchors of the store: taken over by running services, and what happens where they cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from shaken_plugin import runtime
from shaken_plugin.authentication import AuthenticationService, SigningPair
from shaken_plugin.certs.credentials import key_der
from shaken_plugin.certs.sealing import Kek, Keyring, rewrap, seal
from shaken_plugin.certs.stored import JoinedAnchors, OwnCredential, StoredCredentials
from shaken_plugin.core.certificates import PathValidator, TrustAnchors, parse_chain
from shaken_plugin.core.material import Material, StoredAnchors, StoredPair
from shaken_plugin.core.records import Customer
from shaken_plugin.errors import FailureCode, FileProblems, StoreUnavailable, VerificationFailure
from shaken_plugin.lab.pki import Authority, Issued
from shaken_plugin.lab.provider import Provider
from shaken_plugin.ports import Author, Severity
from shaken_plugin.stores.memory import MemoryPolicy
from shaken_plugin.stores.sqlite import SqlitePolicy, read_header
from shaken_plugin.switch import Switch
from shaken_plugin.telemetry import MemoryObserver
from tests.conftest import NOW
from tests.services.builders import RANDOM_ORIGID, SPC, X5U, call, pair, rules, token_part
from tests.stores.descriptors import open_files

OCTETS = bytes(range(100, 132))
KEK, OTHER = Kek(OCTETS), Kek(bytes(range(32)))
RING = Keyring(KEK)
AUTHOR = Author("anna", "ticket 4711", NOW)
NEXT = "https://certificates.example.com/next.pem"


def stored(issued: Issued, name: str = "next", *, x5u: str = NEXT, ring: Keyring = RING, **more: Any) -> StoredPair:
    """A pair as the store has it."""
    values: dict[str, Any] = {"credential": "main", "live_from": 1.0} | more
    return sealed_for(StoredPair(name, sealed="", chain=issued.chain.decode(), x5u=x5u, **values), issued, ring)


def sealed_for(pair: StoredPair, issued: Issued, ring: Keyring = RING) -> StoredPair:
    """A pair with a key sealed for just it, however little sense it makes."""
    return replace(pair, sealed=seal(ring, pair.bound, key_der(issued.key)))


class Source:
    """A `MaterialSource` that counts what it is asked."""

    def __init__(self, *material: Material) -> None:
        self.content = material
        self.number = 1
        self.broken = False
        self.asked = 0
        self.wait: tuple[Event, Event] | None = None

    def version(self) -> int:
        if self.broken:
            raise StoreUnavailable("broken on purpose")
        return self.number

    def material(self) -> tuple[Material, ...]:
        self.asked += 1
        if self.broken:
            raise StoreUnavailable("broken on purpose")
        if self.wait is not None:
            self.wait[0].set()
            assert self.wait[1].wait(10)
        return self.content

    def put(self, *material: Material) -> None:
        self.content, self.number = material, self.number + 1


@pytest.fixture(scope="module")
def ours(authority: Authority) -> SigningPair:
    return pair(authority)


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue(spc=SPC, now=NOW)


def credentials(source: Source, *pairs: SigningPair, ring: Keyring = RING) -> StoredCredentials:
    made = StoredCredentials({"main": OwnCredential(SPC, pairs)}, ring, frozenset(), source)
    made.take(source.content)
    return made


def urls(made: StoredCredentials, name: str = "main") -> list[str]:
    return [one.x5u for one in made.named[name].pairs]


# --- Taking over ----------------------------------------------------------------------------------


def test_pairs_of_the_store_join_those_of_the_settings(ours: SigningPair, issued: Issued) -> None:
    made = credentials(Source(stored(issued)), ours)
    assert urls(made) == [X5U, NEXT]
    assert made.trouble == ()
    assert made.own(NEXT)
    assert not made.own("https://elsewhere.example/a.pem")


def test_a_new_version_takes_over_what_changed_and_asks_nothing_while_it_stays(
    ours: SigningPair, issued: Issued
) -> None:
    source = Source()
    made = credentials(source, ours)
    for now in range(5):
        made.look(1, NOW + now)
    assert source.asked == 1
    source.put(stored(issued))
    made.look(2, NOW + 5)
    assert (urls(made), source.asked) == ([X5U, NEXT], 2)
    source.put()
    made.look(3, NOW + 6)
    assert urls(made) == [X5U]


def test_what_did_not_change_is_not_opened_again(ours: SigningPair, issued: Issued) -> None:
    one = stored(issued)
    source = Source(one)
    made = credentials(source, ours)
    signer = made.named["main"].pairs[1].signer
    source.put(one, stored(issued, "third", x5u=f"{NEXT}3"))
    made.look(2, NOW)
    assert made.named["main"].pairs[1].signer is signer
    assert urls(made) == [X5U, NEXT, f"{NEXT}3"]


def test_pairs_of_credentials_that_this_host_has_not_are_left_alone(ours: SigningPair, issued: Issued) -> None:
    made = credentials(Source(stored(issued, credential="elsewhere", ring=Keyring(OTHER))), ours)
    assert (urls(made), made.trouble, list(made.named)) == ([X5U], (), ["main"])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda one, _: replace(one, sealed=one.sealed[:-3]), "damaged"),
        (lambda one, _: replace(one, sealed="other"), "a way that this release does not know"),
        (
            lambda one, of: sealed_for(replace(one, chain="\ud800 no chain"), of),
            "the certificate cannot sign PASSporTs",
        ),
        (lambda one, of: sealed_for(replace(one, x5u="http://a.example"), of), "verifiers refuse it"),
        (lambda one, of: sealed_for(replace(one, live_from=NOW * 2), of), "live_from lies after the certificate's end"),
    ],
    ids=["damaged", "format", "chain", "x5u", "live_from"],
)
def test_a_pair_that_cannot_be_used_leaves_the_old_one_of_its_name_and_says_so(
    ours: SigningPair, issued: Issued, spoil: Callable[[StoredPair, Issued], StoredPair], told: str
) -> None:
    good = stored(issued)
    source = Source(good)
    made = credentials(source, ours)
    source.put(spoil(good, issued), spoil(replace(good, name="never"), issued))
    made.look(2, NOW)
    assert urls(made) == [X5U, NEXT]
    kept, without = made.trouble
    assert kept.startswith("key next of the store: ")
    assert told in kept
    assert kept.endswith("; the one that was opened before goes on signing")
    assert without.startswith("key never of the store: ")
    source.put(good)
    made.look(3, NOW)
    assert (urls(made), made.trouble) == ([X5U, NEXT], ())


@pytest.mark.parametrize("edited", ["name", "credential", "x5u", "live_from", "never live", "chain"])
def test_who_may_write_to_the_store_alone_cannot_say_otherwise_what_a_key_is_for(
    ours: SigningPair, authority: Authority, edited: str
) -> None:
    issued = authority.issue(spc=SPC, now=NOW)
    good = stored(issued)
    signer_alone = good.chain.partition("-----END CERTIFICATE-----\n")
    changes: dict[str, dict[str, Any]] = {
        "name": {"name": "other"},
        "credential": {"credential": "second"},
        "x5u": {"x5u": "https://elsewhere.example/a.pem"},
        "live_from": {"live_from": 0.0},
        "never live": {"live_from": NOW + 86_400.0},
        "chain": {"chain": "".join(signer_alone[:2])},
    }
    forged = replace(good, **changes[edited])
    assert forged != good
    # "second" has no SPC, which would refuse the certificate by itself.
    own = {"main": OwnCredential(SPC, (ours,)), "second": OwnCredential()}
    made = StoredCredentials(own, RING, frozenset(), Source())
    (trouble,) = made.take([forged])
    assert trouble.text.startswith(f"key {forged.name} of the store: it is damaged, or ")
    assert (urls(made), urls(made, "second")) == ([X5U], [])
    # What was opened before goes on, as it was.
    made.take([good])
    made.take([forged])
    assert urls(made) == ([X5U] if edited == "name" else [X5U, NEXT])


def test_after_a_rotation_that_this_host_does_not_know_of_yet_it_signs_on(ours: SigningPair, issued: Issued) -> None:
    one = stored(issued)
    source = Source(one)
    made = credentials(source, ours)
    source.put(replace(one, sealed=rewrap(Keyring(OTHER, [KEK]), one.bound, one.sealed)))
    made.look(2, NOW)
    assert urls(made) == [X5U, NEXT]
    assert f"sealed by the key-encryption key {OTHER.id}" in made.trouble[0]
    source.put()
    made.look(3, NOW)
    assert (urls(made), made.trouble) == ([X5U], ())


def test_another_certificate_with_the_key_of_somebody_else_is_refused(
    authority: Authority, ours: SigningPair, issued: Issued
) -> None:
    other = authority.issue(spc=SPC, now=NOW)
    mixed = sealed_for(replace(stored(issued), chain=other.chain.decode()), issued)
    made = credentials(Source(mixed), ours)
    assert urls(made) == [X5U]
    assert "the private key does not match the certificate" in made.trouble[0]


def test_while_the_store_cannot_be_read_everything_stays_and_it_is_asked_once_a_second(
    ours: SigningPair, issued: Issued
) -> None:
    source = Source(stored(issued))
    made = credentials(source, ours)
    source.put()
    source.broken = True
    for moment in (0.0, 0.3, 0.6, 0.9):
        made.look(2, NOW + moment)
    assert source.asked == 1
    assert (urls(made), made.trouble) == ([X5U, NEXT], ("keys of the store stay as they were: broken on purpose",))
    source.broken = False
    made.look(2, NOW + 1.0)
    assert (urls(made), made.trouble) == ([X5U], ())


def test_a_call_does_not_wait_while_another_thread_takes_over(ours: SigningPair, issued: Issued) -> None:
    source = Source()
    made = credentials(source, ours)
    source.put(stored(issued))
    source.wait = begun, may_end = Event(), Event()
    thread = Thread(target=made.look, args=(2, NOW))
    thread.start()
    assert begun.wait(10)
    made.look(2, NOW)
    assert (urls(made), source.asked) == ([X5U], 1)
    may_end.set()
    thread.join(10)
    assert urls(made) == [X5U, NEXT]


def test_a_running_service_signs_with_the_pair_that_came(ours: SigningPair, issued: Issued) -> None:
    source = Source()
    policy = MemoryPolicy()
    service = AuthenticationService(rules(), policy, credentials(source, ours))
    message = call(source=None)

    def x5u() -> str | None:
        identity = service.sign(message, NOW, RANDOM_ORIGID).identity
        return token_part(identity, 0)["x5u"] if identity else None

    assert x5u() is None  # nobody's call
    with policy.change(AUTHOR, "a key comes") as draft:
        draft.put_material(stored(issued))
    source.content = policy.material()
    before = source.asked
    assert service.credentials.named["main"].current(NOW) == ours
    x5u()
    x5u()
    assert source.asked == before + 1
    current = service.credentials.named["main"].current(NOW)
    assert current is not None
    assert current.x5u == NEXT


# --- Trust anchors --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign() -> Authority:
    return Authority.new(NOW, name="Foreign")


def anchors_of(*authorities: Authority, name: str = "more") -> StoredAnchors:
    return StoredAnchors(name, b"".join(one.root_pem for one in authorities).decode())


def joined(source: Source, *fixed: Authority) -> JoinedAnchors:
    own = [certificate for one in fixed for certificate in parse_chain(one.root_pem)]

    def join(more: Any) -> PathValidator | None:
        together = [*own, *more]
        return TrustAnchors(together) if together else None

    return JoinedAnchors(join, source, source.content)


def passes(validator: PathValidator, authority: Authority, now: float = NOW) -> bool | FailureCode:
    try:
        validator.validate(parse_chain(authority.issue(spc=SPC, now=NOW).chain), now)
    except VerificationFailure as failure:
        return failure.code
    return True


def test_anchors_of_the_store_are_believed_within_a_second_and_no_longer_than_they_are_there(
    authority: Authority, foreign: Authority
) -> None:
    source = Source()
    validator = joined(source, authority)
    assert (passes(validator, authority), validator.count) == (True, 1)
    assert passes(validator, foreign) is FailureCode.CERTIFICATE_UNTRUSTED
    first = validator.version(NOW)
    source.put(anchors_of(foreign))
    assert passes(validator, foreign, NOW + 0.9) is FailureCode.CERTIFICATE_UNTRUSTED
    assert passes(validator, foreign, NOW + 1.0) is True
    assert passes(validator, authority, NOW + 1.0) is True
    assert (validator.count, validator.version(NOW + 1.0) != first) == (2, True)
    source.put()
    assert passes(validator, foreign, NOW + 2.0) is FailureCode.CERTIFICATE_UNTRUSTED
    assert validator.version(NOW + 2.0) == first


def test_while_the_version_stays_anchors_are_not_read(authority: Authority) -> None:
    source = Source()
    validator = joined(source, authority)
    for second in range(5):
        validator.version(NOW + second)
    assert source.asked == 1


def test_anchors_that_cannot_be_used_or_read_leave_what_was_there(authority: Authority, foreign: Authority) -> None:
    source = Source(anchors_of(foreign))
    validator = joined(source, authority)
    leaf = authority.issue(spc=SPC, now=NOW).chain.decode()
    for number, content in enumerate(("no certificate", "\ud800", leaf), 1):
        source.put(StoredAnchors("more", content))
        assert passes(validator, foreign, NOW + number) is True
        assert "stay as they were" in validator.trouble[0]
    source.broken = True
    assert passes(validator, foreign, NOW + 10) is True
    assert list(validator.trouble) == ["trust anchors of the store stay as they were: broken on purpose"]
    source.broken = False
    source.put(anchors_of(foreign))
    assert passes(validator, foreign, NOW + 11) is True
    assert not validator.trouble


def test_without_any_anchor_nothing_passes_and_it_is_our_trouble(foreign: Authority) -> None:
    source = Source(anchors_of(foreign))
    validator = joined(source)
    assert passes(validator, foreign) is True
    source.put()
    assert passes(validator, foreign, NOW + 1) is FailureCode.TRUST_LIST_UNAVAILABLE
    assert (validator.count, FailureCode.TRUST_LIST_UNAVAILABLE.is_ours) == (0, True)


# --- From the store's file into a switch ----------------------------------------------------------


@pytest.fixture
def kek(tmp_path: Path) -> str:
    path = tmp_path / "kek"
    path.write_bytes(OCTETS)
    path.chmod(0o600)
    return f"file:{path}"


@pytest.fixture
def observer() -> MemoryObserver:
    return MemoryObserver()


@pytest.fixture
def switch(provider: Provider, change: Callable[..., None], kek: str, observer: MemoryObserver) -> Switch:
    """A worker whose settings have a pair of their own, and know the key-encryption key."""
    change(keys={"encryption": kek})
    services = runtime.start(provider.settings, NOW)
    return Switch(services, observer, lambda: clock[0], lambda: RANDOM_ORIGID)


clock = [NOW]


@pytest.fixture(autouse=True)
def _now() -> None:
    clock[0] = NOW


def put(provider: Provider, *material: Material) -> None:
    with SqlitePolicy(provider.folder / "policy.db").change(AUTHOR, "keys") as draft:
        for one in material:
            draft.put_material(one)


def signs_with(switch: Switch) -> str | None:
    identity = switch.sign(lambda: call(source="127.0.0.2")).variables.get("identity")
    return token_part(str(identity), 0)["x5u"] if identity else None


def test_a_worker_takes_a_key_over_without_restart_or_reload(
    provider: Provider, switch: Switch, authority: Authority
) -> None:
    assert signs_with(switch) == provider.x5u
    put(provider, stored(authority.issue(spc=SPC, now=NOW)))
    assert signs_with(switch) == NEXT
    with SqlitePolicy(provider.folder / "policy.db").change(AUTHOR, "key removed") as draft:
        draft.remove_material(StoredPair, "next")
    assert signs_with(switch) == provider.x5u


def test_a_worker_that_cannot_open_a_key_signs_on_counts_and_warns_once_a_minute(
    provider: Provider, switch: Switch, observer: MemoryObserver, authority: Authority
) -> None:
    put(provider, stored(authority.issue(spc=SPC, now=NOW), ring=Keyring(OTHER)))
    for _ in range(3):
        assert signs_with(switch) == provider.x5u
    ((severity, line),) = [one for one in observer.lines if "key next of the store" in one[1]]
    assert severity is Severity.WARNING
    assert f"sealed by the key-encryption key {OTHER.id}" in line
    assert observer.counts["key_unusable"] == 3


def test_anchors_of_the_store_are_not_believed_where_settings_do_not_say_so(
    provider: Provider, switch: Switch, observer: MemoryObserver, foreign: Authority
) -> None:
    verifier = switch.services.verification
    assert verifier is not None
    put(provider, anchors_of(foreign))
    assert passes(verifier.anchors, foreign, NOW + 2) is FailureCode.CERTIFICATE_UNTRUSTED
    services = runtime.start(provider.settings, NOW)
    assert services.verification is not None
    assert passes(services.verification.anchors, foreign, NOW + 2) is FailureCode.CERTIFICATE_UNTRUSTED
    assert services.warnings == (
        "trust anchors more of the store are not believed here: verification.stored_anchors is false",
    )
    # Nor do damaged ones keep anything from starting.
    put(provider, StoredAnchors("more", "no certificate"))
    runtime.start(provider.settings, NOW)
    clock[0] = NOW + 3
    switch.verify(lambda: call(source="127.0.0.2"))
    assert observer.counts["anchors_unusable"] == 0


def test_anchors_of_the_store_alone_are_none_where_settings_do_not_say_so(
    provider: Provider, change: Callable[..., None], authority: Authority
) -> None:
    change(verification={"trust_anchors": []})
    put(provider, anchors_of(authority))
    (told,) = problems(provider)
    assert told.endswith("the store's are not believed, for verification.stored_anchors is false")


def test_a_worker_verifies_by_anchors_that_come_and_go(
    provider: Provider, change: Callable[..., None], observer: MemoryObserver, foreign: Authority
) -> None:
    change(verification={"stored_anchors": True})
    switch = Switch(runtime.start(provider.settings, NOW), observer, lambda: clock[0], lambda: RANDOM_ORIGID)
    verifier = switch.services.verification
    assert verifier is not None
    assert passes(verifier.anchors, foreign) is FailureCode.CERTIFICATE_UNTRUSTED
    put(provider, anchors_of(foreign))
    assert passes(verifier.anchors, foreign, NOW + 1) is True
    put(provider, StoredAnchors("more", "no certificate"))
    assert passes(verifier.anchors, foreign, NOW + 2) is True
    clock[0] = NOW + 2.5
    switch.verify(lambda: call(source="127.0.0.2"))
    assert observer.counts["anchors_unusable"] == 1


def test_a_start_opens_every_key_and_leaves_no_connection_open(
    provider: Provider, change: Callable[..., None], kek: str, authority: Authority
) -> None:
    change(keys={"encryption": kek})
    runtime.apply(provider.settings, NOW)
    put(provider, stored(authority.issue(spc=SPC, now=NOW)))
    services = runtime.start(provider.settings, NOW)
    assert services.warnings == ()
    assert [one.x5u for one in services.credentials["main"].pairs] == [provider.x5u, NEXT]
    assert open_files(provider.folder / "policy.db") == []


def problems(provider: Provider) -> list[str]:
    with pytest.raises(FileProblems) as refused:
        runtime.start(provider.settings, NOW)
    return [f"{problem.path}: {problem.message}" for problem in refused.value.problems]


def test_a_start_without_the_key_encryption_key_is_refused_and_says_which_is_missing(
    provider: Provider, change: Callable[..., None], kek: str, authority: Authority
) -> None:
    change(keys={"encryption": kek})
    runtime.apply(provider.settings, NOW)
    put(provider, stored(authority.issue(spc=SPC, now=NOW)))
    store = provider.folder / "policy.db"
    change(keys={"encryption": None})
    (told,) = problems(provider)
    assert told.startswith("signing.credentials[0]: key next of the store: it is sealed by the key-encryption key ")
    assert KEK.id in told
    Path(kek.removeprefix("file:")).unlink()
    change(keys={"encryption": kek})
    (told,) = problems(provider)
    assert told.startswith("keys.encryption: ")
    assert told.endswith("No such file or directory")
    # A reload reads what is in force, which names the key, too: the old services stay.
    with pytest.raises(FileProblems, match=r"keys\.encryption.*No such file"):
        runtime.reload(store, NOW)


def test_a_credential_may_have_all_its_pairs_in_the_store_but_some_somewhere(
    provider: Provider, change: Callable[..., None], kek: str, authority: Authority
) -> None:
    change(keys={"encryption": kek}, signing={"credentials": [{"name": "main", "spc": SPC}]})
    (told,) = problems(provider)
    assert told.startswith("signing.credentials[0].pairs: there are none, and none in the store (")
    assert "shaken key add NAME --credential main" in told
    put(provider, stored(authority.issue(spc=SPC, now=NOW)))
    services = runtime.start(provider.settings, NOW)
    assert [one.x5u for one in services.credentials["main"].pairs] == [NEXT]
    # A change of keys alone is nothing that the policy file could undo: it was put in force.
    assert services.warnings == ()
    with SqlitePolicy(provider.folder / "policy.db").records() as records:
        assert any(True for _ in records.all(Customer))


def test_the_spc_of_the_settings_holds_for_keys_of_the_store(
    provider: Provider, change: Callable[..., None], kek: str, authority: Authority
) -> None:
    change(keys={"encryption": kek})
    runtime.apply(provider.settings, NOW)
    put(provider, stored(authority.issue(spc="811K", now=NOW)))
    (told,) = problems(provider)
    assert told.endswith(f"the certificate's SPC is 811K, the settings say {SPC}")


def test_anchors_may_all_be_in_the_store_but_some_somewhere(
    provider: Provider, change: Callable[..., None], authority: Authority
) -> None:
    change(verification={"trust_anchors": [], "stored_anchors": True})
    (told,) = problems(provider)
    assert told.startswith("verification.trust_anchors: without any, or a trust_list, nothing can be trusted")
    put(provider, anchors_of(authority))
    services = runtime.start(provider.settings, NOW)
    assert services.verification is not None
    assert services.verification.anchors.count == 1
    put(provider, StoredAnchors("more", "no certificate"))
    (told,) = problems(provider)
    assert told.startswith("verification.trust_anchors: trust anchors of the store: ")


def test_plaintext_is_said_loudly_at_every_start_and_refused_outside_a_lab(
    provider: Provider, change: Callable[..., None], authority: Authority
) -> None:
    change(keys={"plaintext": True}, verification={"lab_hosts": ["127.0.0.1:8443"]})
    runtime.apply(provider.settings, NOW)
    put(provider, stored(authority.issue(spc=SPC, now=NOW), ring=Keyring(plaintext=True)))
    for _ in range(2):
        general, named = runtime.start(provider.settings, NOW).warnings
        assert general.startswith("KEYS.PLAINTEXT: ")
        assert named.startswith("THE PRIVATE KEY next LIES IN PLAINTEXT IN THE STORE")
    change(verification={"lab_hosts": []})
    assert problems(provider) == [
        "keys.plaintext: is for a lab, and without verification.lab_hosts this is none; use keys.encryption"
    ]
    change(keys={"plaintext": False})
    (told,) = problems(provider)
    assert "key next of the store: it lies in plaintext" in told


def test_a_key_of_a_credential_that_the_settings_have_not_is_warned_of(
    provider: Provider, change: Callable[..., None], kek: str, authority: Authority
) -> None:
    change(keys={"encryption": kek})
    runtime.apply(provider.settings, NOW)
    put(provider, stored(authority.issue(spc=SPC, now=NOW), credential="second"))
    (warning,) = runtime.start(provider.settings, NOW).warnings
    assert warning == "key next of the store is not used here: the settings have no credential second"


def test_mistakes_of_keys_are_told_with_other_mistakes(
    provider: Provider, change: Callable[..., None], tmp_path: Path
) -> None:
    change(
        keys={"encryption": f"file:{tmp_path / 'gone'}"},
        signing={"credentials": [{"name": "main"}], "freshness": 0},
        verification={"trust_anchors": []},
    )
    told = problems(provider)
    places = ["signing.freshness", "verification.trust_anchors", "keys.encryption"]
    assert [text.partition(": ")[0] for text in told] == places


def test_a_reload_of_the_release_before_reads_settings_that_use_nothing_new(provider: Provider) -> None:
    runtime.apply(provider.settings, NOW)
    settings = read_header(provider.folder / "policy.db").settings
    assert settings is not None
    assert "keys" not in settings

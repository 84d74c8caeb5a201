"""The parts of the benchmark do what they say they measure, in small."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from bench import configurations, machine, peers, proxies, stage, stores
from bench.__main__ import main
from bench.numbering import CALLERS, Numbering
from bench.results import BenchError, Report, Series, Target
from bench.sections import Options, Section, core, freeswitch, kamailio, latency, memory, scale
from bench.sections.registry import SECTIONS
from click.testing import CliRunner
from phonenumbers import is_valid_number, parse

from shaken_plugin.core.jws import unb64url, verify_es256
from shaken_plugin.lab.pki import Authority

NUMBERING = Numbering.make()


def test_the_numbers_of_a_store_are_valid_different_and_drawn_from_all_of_the_plan() -> None:
    content = stores.Content(NUMBERING, 3_000, 30)
    numbers = [number for index in range(stores.RIGHTS) for number in content.of_right(index)]
    assert len(set(numbers)) == 3_000
    assert all(is_valid_number(parse(f"+{number}")) for number in random.Random(1).sample(numbers, 100))
    assert len({number[1:4] for number in numbers}) > len(NUMBERING.areas) * 0.8
    spans = list(content.spans())
    assert len(spans) == 30
    for before, after in pairwise(spans):
        assert int(before.first) < int(before.last) < int(after.first)
    assert all(span.first[:4] == span.last[:4] for span in spans)
    assert max(numbers) < min(span.first for span in spans)


def test_calls_with_numbers_of_a_store_are_all_signed_at_level_a(tmp_path: Path) -> None:
    store = stores.build(tmp_path / "few", Authority.new(time.time()), stores.Content(NUMBERING, 2_000, 20))
    callers = store.callers(random.Random(2), 41)
    assert len(set(callers)) == 41
    for make in (scale.deciding, scale.signing):
        task = make(store.settings, callers)
        task.prepare(40)
        task.run(40)
        task.check()
        with pytest.raises(BenchError, match="not so many"):
            task.prepare(1)
    assert store.octets > 50_000


def test_a_store_begins_a_fleet_and_another_host_has_all_of_it(tmp_path: Path) -> None:
    store = stores.build(tmp_path / "few", Authority.new(time.time()), stores.Content(NUMBERING, 2_000, 20))
    found = {one.name: one for one in scale.in_a_fleet(store, 2_000, tmp_path / "fleet")}
    assert found.keys() == {scale.REDIS, scale.UPLOAD, scale.JOIN}
    assert all(one.median > 0 and one.at == 2_000 for one in found.values())


def test_a_call_that_would_not_be_signed_ends_the_measurement(tmp_path: Path) -> None:
    made = stage.provider(tmp_path, Authority.new(time.time()))
    with pytest.raises(BenchError, match="not signed at level A"):
        stage.SwitchSide(made.settings).sign(stage.message("12155559999"))


@pytest.mark.parametrize("make", [core.raw_signing, core.raw_verifying, core.pyjwt_signing, core.pyjwt_verifying])
def test_bases_do_what_they_are_measured_for(make: core.Make, tmp_path: Path) -> None:
    made = stage.provider(tmp_path, Authority.new(time.time()))
    make(made.credential.key, made.settings).run(2)


def test_ours_do_what_they_are_measured_for(tmp_path: Path) -> None:
    authority = Authority.new(time.time())
    origin = stage.provider(tmp_path / "origin", authority)
    target = stage.provider(tmp_path / "target", authority, policy={}, spc="123T")
    signers = core.cold_signers(authority, target, 2)
    cold = core.ColdVerifying(b"", target.settings, signers)
    cold.prepare(5)
    cold.run(5)
    assert [len(calls) for _, calls in cold.work] == [2, 2, 1]
    warm = core.CompleteVerifying(b"", target.settings, origin.settings)
    warm.prepare(1)
    with pytest.raises(BenchError, match="not verified"):
        warm.run(1)
    target.publish(origin.x5u, origin.credential.chain)
    warm = core.CompleteVerifying(b"", target.settings, origin.settings)
    warm.prepare(3)
    warm.run(3)
    core.bare_signing(b"", origin.settings).run(2)


def test_the_ratios_of_the_core_are_those_that_targets_are_set_for() -> None:
    report = Report("core", "")
    report.series = [Series(name, "µs", (10.0,)) for name in core.names()]
    core.compare(report)
    wanted = {(one.of, one.to): one.target.limit for one in report.ratios if one.target is not None}
    assert wanted == {
        (core.BARE, "OpenSSL sign"): 0.75,
        (core.BARE, "libsecsipid sign"): 1.7,
        (core.SIGNING, "OpenSSL sign"): 0.55,
        (core.SIGNING, "libsecsipid sign"): 1.3,
        (core.WARM, "OpenSSL verify"): 0.7,
        (core.WARM, "libsecsipid verify"): 1.0,
    }


def test_what_openssl_says_is_read() -> None:
    assert peers.parse_rates("+F4:3:256:45072.972973:15255.681818\n") == (45072.972973, 15255.681818)
    with pytest.raises(BenchError, match="something else"):
        peers.parse_rates("speed: Unknown algorithm ecdsap256")


def test_libsecsipid_is_asked_as_its_module_asks_it(tmp_path: Path) -> None:
    try:
        peers.Secsipid()
    except BenchError as exc:
        pytest.skip(str(exc))
    made = stage.provider(tmp_path, Authority.new(time.time()))
    core.secsipid_signing(made.credential.key, made.settings).run(2)
    core.secsipid_verifying(made.credential.key, made.settings).run(2)


def test_the_machine_is_described_without_names_and_paths() -> None:
    facts = machine.describe()
    assert {"processor", "cores", "kernel", "Python", "OpenSSL of cryptography"} <= facts.keys()
    assert re.fullmatch(r"[\w.+-]+", facts.get("commit", "unknown"))  # not where there is no git
    text = "\n".join(facts.values())
    assert os.uname().nodename not in text
    assert not re.search(r"(?<!GNU)/[a-z]+/", text)


@pytest.mark.parametrize(
    ("error", "text"),
    [(BenchError("no numbers left"), "not measured: no numbers left"), (KeyError("x"), "KeyError: 'x'")],
)
def test_a_section_that_cannot_be_measured_says_why_and_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    def broken(_: Options) -> Report:
        raise error

    monkeypatch.setitem(SECTIONS, "core", Section("core", "A title", broken))
    done = CliRunner().invoke(main, ["core", "--quick", "--results", str(tmp_path)])
    assert done.exit_code == 1
    assert "core: failed in 0 s" in done.output
    assert text in done.output
    (written,) = tmp_path.glob("*/results.json")
    assert '"quick": true' in written.read_text("utf-8")


@pytest.mark.parametrize("quick", [False, True])
def test_the_quick_run_has_all_sections_with_targets_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, quick: bool
) -> None:
    with_targets = {"core", "kamailio", "freeswitch", "scale", "memory"}
    assert set(SECTIONS) == with_targets | {"latency", "parts"}
    for name, section in SECTIONS.items():
        report = Report(name, "A title")
        monkeypatch.setitem(SECTIONS, name, replace(section, run=partial(lambda found, _: found, report)))
    done = CliRunner().invoke(main, [*(["--quick"] if quick else []), "--results", str(tmp_path)])
    assert done.exit_code == 0
    measured = set(re.findall(r"^(\w+): measured in", done.output, re.MULTILINE))
    assert measured == (with_targets if quick else set(SECTIONS))


def test_what_is_measured_is_kept_where_a_later_section_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(_: Options) -> Report:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it goes on")

    monkeypatch.setitem(
        SECTIONS, "core", Section("core", "The first title", lambda _: Report("core", "The first title"))
    )
    monkeypatch.setitem(SECTIONS, "scale", Section("scale", "A title", ended))
    before = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(main, ["core", "scale", "--results", str(tmp_path)])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.exit_code == 128 + signal.SIGTERM
    (written,) = tmp_path.glob("*/results.json")
    assert "The first title" in written.read_text("utf-8")


def test_a_target_that_is_missed_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Report("core", "A title", series=[Series("worker", "MB", (90.0,), target=Target(80.0))])
    monkeypatch.setitem(SECTIONS, "core", Section("core", "A title", lambda _: found))
    done = CliRunner().invoke(main, ["core", "--results", str(tmp_path)])
    assert done.exit_code == 0
    assert "Targets: 0 of 1 met" in done.output


def test_the_plain_relay_is_the_shipped_configuration_without_our_lines() -> None:
    shipped = Path("kamailio/kamailio-native.cfg").read_text("utf-8")
    lines = configurations.with_modules(shipped, secsipid=True).splitlines()
    left = configurations.without_ours(
        "\n".join(lines) + "\n", sign="    sign_otherwise();", verify="    check_otherwise();"
    )
    assert 'loadmodule "secsipid.so"' in left
    gone = [
        line.partition("#")[0].strip() for line in lines if line.partition("#")[0] and line not in left.splitlines()
    ]
    ours = (
        r'python_exec\(|t_on_branch\("BRANCH"\)|t_on_reply\("REPLY"\)|\$xavp\(shaken(_as|\[0\])?=>|route\((SUBSTITUTED|INSIDE_A_DIALOG|BRANCH_IN_PYTHON|LEFT)\)|'
        r"^(route|branch_route|onreply_route|event_route)\[[\w:]+\] \{$"
    )
    assert [line for line in gone if line and not re.search(ours, line)] == []
    assert (left.count("sign_otherwise();"), left.count("check_otherwise();")) == (1, 1)
    assert left.count("{") == left.count("}")
    assert not re.search(r"\{\n\s*\}", left)  # which Kamailio does not take
    with pytest.raises(BenchError, match="has changed"):
        configurations.without_ours(shipped.replace('python_exec("shaken_sign");', ""))


def test_a_tampered_token_differs_from_a_good_one_in_its_signature_alone(tmp_path: Path) -> None:
    pair = stage.pair_of(stage.provider(tmp_path, Authority.new(time.time())).settings)
    good, bad = (proxies.token(pair, tampered=tampered).split(".") for tampered in (False, True))
    assert good[0] == bad[0]
    assert all(len(parts) == 3 and len(parts[2]) == 86 for parts in (good, bad))
    key = pair.certificate.public_key
    assert [verify_es256(key, f"{one[0]}.{one[1]}".encode(), unb64url(one[2])) for one in (good, bad)] == [True, False]


def test_the_ratios_in_kamailio_are_those_that_targets_are_set_for() -> None:
    report = Report("kamailio", "")
    report.series = [Series(name, "ms", (1.0,)) for name in proxies.NAMES]
    kamailio.compare(report)
    assert {(one.of, one.to): one.target.limit for one in report.ratios if one.target is not None} == {
        (proxies.IDLE, proxies.PLAIN): 1.10,
        (proxies.IDLE_KEMI, proxies.PLAIN_KEMI): 1.10,
        (proxies.SIGN, proxies.SIGN_OTHER): 1.00,
        (proxies.SIGN_KEMI, proxies.SIGN_OTHER): 1.10,
        (proxies.FLEET, proxies.SIGN_OTHER): 1.15,
        (proxies.FLEET_KEMI, proxies.SIGN_OTHER): 1.15,
        (proxies.VERIFY, proxies.VERIFY_OTHER): 0.95,
        (proxies.VERIFY_KEMI, proxies.VERIFY_OTHER): 1.05,
    }


def test_what_is_added_is_told_beside_what_the_plain_relay_takes() -> None:
    found = {
        (variant, name, 100): (2.0, 3.0) if variant == proxies.SIGN else (1.0, 1.5)
        for variant in (proxies.PLAIN, proxies.SIGN)
        for name in latency.NAMES
    }
    made = {(one.name, one.at): one.values for one in latency.beside(found)}
    assert made[f"added by {proxies.SIGN}, p99", 100] == (1.0, 1.5)
    assert made[f"{proxies.PLAIN}, max", 100] == (1.0, 1.5)
    assert len(made) == 8


def test_the_worker_that_grows_most_is_told() -> None:
    still = [(calls, 70.0) for calls in range(5_000, 105_000, 5_000)]
    growing = [(calls, 60.0 + max(0, 20_000 - calls) + calls / 100_000) for calls, _ in still]
    *lines, growth = memory.growth({11: still, 12: growing}, 100_000)
    assert growth.median == pytest.approx(1.0)  # what comes before a fifth of the calls does not count
    assert {one.name for one in lines} == {"worker 1", "worker 2"}
    assert len(lines) == 40


@pytest.mark.alone
def test_kamailios_do_what_they_are_measured_for_and_calls_through_them_are_timed(tmp_path: Path) -> None:
    try:
        secsipid = proxies.need_programs()
    except BenchError as exc:
        pytest.skip(str(exc))
    with ExitStack() as stack:
        on = proxies.Stage(tmp_path, stack, secsipid=secsipid)
        wanted = (proxies.PLAIN, proxies.SIGN, proxies.SIGN_OTHER, proxies.FLEET, proxies.VERIFY)
        found = on.variants(wanted)
        assert [one.name for one in found] == [name for name in wanted if secsipid or name != proxies.SIGN_OTHER]
        plain, signs = found[:2]
        assert plain.counted() == 0
        assert signs.counted() == proxies.WARMING
        assert len(signs.proxy.sip_workers()) == 4  # two on each side
        lost = dict[tuple[str, str, int], int]()
        values = latency.timed(on, signs, 100, 20, lost)()
        assert 0 < values[proxies.SIGN, "p50", 100] <= values[proxies.SIGN, "max", 100] < 5_000
        assert lost == {}
        signs.proxy.settle()
        with on.answering():
            counts = on.call(signs, 5, 50, callers=[proxies.CALLER] * 5).counts
        assert (counts.successful, signs.counted()) == (5, proxies.WARMING + 25)
        verifies = found[-1]
        with on.answering():
            assert on.call(signs, 40, 100).counts.successful == on.call(verifies, 40, 100).counts.successful == 40
        assert (signs.counted(), verifies.counted()) == (proxies.WARMING + 65, proxies.WARMING + 40)
        records = [
            json.loads(line) for file in tmp_path.glob("*/calls/*.jsonl") for line in file.read_text().splitlines()
        ]
        signed, verified = ([one for one in records if one["kind"] == kind] for kind in ("sign", "verify"))
        assert {one["orig"] for one in signed} < set(CALLERS)
        assert min(len({one[name] for one in signed}) for name in ("orig", "dest")) > 20
        assert min(len({one[name] for one in verified}) for name in ("orig", "dest")) == 41  # and the one that proves
        before = signs.counted()
        with on.answering():
            kamailio._place(on, signs, kamailio.WARMING)
            assert signs.counted() == before + kamailio.WARMING
            cost = kamailio._cost(on, signs, 10, 20, Counter())()
        assert cost.keys() == {proxies.SIGN}
        assert 0 < cost[proxies.SIGN] < 50
        assert signs.counted() == before + kamailio.WARMING + 30
        spools = (file.read_text().splitlines() for file in (tmp_path / "origin" / "calls").glob("*.jsonl"))
        remembered = [len({json.loads(line)["orig"] for line in lines}) for lines in spools]
        assert len(remembered) == 2
        assert min(remembered) > len(CALLERS) / 2
        with pytest.raises(BenchError, match="INVITEs arrive with"):
            proxies.prove(on, replace(plain, counter=signs.counter))


def test_a_freeswitch_that_cannot_sign_by_itself_is_known(tmp_path: Path) -> None:
    (tmp_path / "mod_sofia.so").write_bytes(Path("/proc/self/exe").read_bytes())
    assert not freeswitch.signs_by_itself(tmp_path)

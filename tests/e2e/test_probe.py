"""The probe through real switches: what Kamailio and FreeSWITCH do to Identity headers."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.lab.servers import LOOPBACK, KamailioServer, Server, answers_sip, find_program, free_port
from shaken_plugin.probe.advice import FREESWITCH, KAMAILIO, advise, product_of
from shaken_plugin.probe.canaries import BY_NAME, CANARIES, Signer
from shaken_plugin.probe.findings import Kind, Verdict
from shaken_plugin.probe.passive import from_records
from shaken_plugin.probe.play import Options
from shaken_plugin.probe.records import read_messages
from shaken_plugin.probe.session import Session
from tests.e2e.conftest import Network

INTACT, DOUBLE, GONE = Kind.INTACT, Kind.DUPLICATED, {Kind.STRIPPED}


def probe(port: int, listen: int, *names: str, **options: Any) -> dict[str, Verdict]:
    """Send canaries by way of a port on loopback; the verdicts by name."""
    given: dict[str, Any] = {
        "via": (LOOPBACK, port),
        "listen": (LOOPBACK, listen),
        "timeout": 3.0,
        "settle": 0.05,
        **options,
    }
    chosen = [BY_NAME[name] for name in names] or list(CANARIES)
    session = Session(Options(plan=dial_plan("US"), **given), chosen, Signer.new(time.time()))
    return {verdict.name: verdict for verdict in asyncio.run(session.run())}


def kinds(verdicts: Mapping[str, Verdict]) -> dict[str, set[Kind]]:
    return {name: set(verdict.kinds) for name, verdict in verdicts.items()}


# --- Kamailio ---------------------------------------------------------------------------------

RELAY = """#!KAMAILIO
debug=2
log_stderror=yes
children=2
tcp_children=2
auto_aliases=no
enable_tls=yes
listen=udp:127.0.0.1:{port}
listen=tcp:127.0.0.1:{port}
listen=tls:127.0.0.1:{tls_port}
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "tls.so"
modparam("tls", "certificate", "{folder}/server.pem")
modparam("tls", "private_key", "{folder}/server.key")
modparam("tls", "verify_certificate", 0)
modparam("tls", "tls_method", "TLSv1.2+")
request_route {{
    if (is_method("OPTIONS") && $rU == $null) {{ sl_send_reply("200", "OK"); exit; }}
    if (has_totag()) {{
        if (loose_route()) t_relay();
        exit;
    }}
    {change}
    record_route();
    $du = "{target}";
    t_relay();
}}
"""


class Relay(Server):
    """A Kamailio without our plugin that sends every call to one place."""

    def __init__(self, folder: Path, listen: int, *, transport: str = "udp", change: str = "") -> None:
        self.port, self.tls_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = trustme.CA()
        certificate = self.authority.issue_cert("localhost", LOOPBACK)
        certificate.private_key_pem.write_to_path(folder / "server.key")
        certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
        target = f"sip:{LOOPBACK}:{listen + (transport == 'tls')};transport={transport}"
        config = folder / "relay.cfg"
        config.write_text(
            RELAY.format(port=self.port, tls_port=self.tls_port, folder=folder, target=target, change=change)
        )
        command = [find_program("kamailio"), "-f", str(config), "-DD", "-E", "-m", "64", "-M", "16"]
        command += ["-w", str(folder), "-Y", str(folder), "-P", str(folder / "pid")]
        super().__init__("relay", command, folder, {})

    def is_ready(self) -> bool:
        return answers_sip(self.port)

    def tls(self) -> dict[str, ssl.SSLContext]:
        """Contexts for the probe."""
        client = ssl.create_default_context()
        self.authority.configure_trust(client)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(LOOPBACK).configure_cert(server)
        return {"tls_client": client, "tls_server": server}


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_plain_kamailio_leaves_every_canary_intact(tmp_path: Path, transport: str) -> None:
    listen = free_port()
    with Relay(tmp_path, listen, transport=transport) as relay:
        over_tls = transport == "tls"
        options: dict[str, Any] = relay.tls() if over_tls else {}
        port = relay.tls_port if over_tls else relay.port
        verdicts = probe(port, listen, transport=transport, name="localhost", **options)
    assert kinds(verdicts) == {canary.name: {INTACT} for canary in CANARIES}
    assert product_of(verdicts["one"].server) is KAMAILIO
    received = {leg.transport for verdict in verdicts.values() for leg in verdict.after}
    assert received == {transport}


CHANGES: list[tuple[str, str, dict[str, set[Kind]]]] = [
    ("removes", 'remove_hf("Identity");', {"one": GONE, "two": GONE, "compact-name": GONE}),
    ("appends again", 'append_hf("Identity: $hdr(Identity)\\r\\n");', {"one": {DOUBLE}}),
]  # fmt: skip


@pytest.mark.parametrize(("change", "wanted"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_what_a_kamailio_script_does_to_the_header_is_seen(
    tmp_path: Path, change: str, wanted: dict[str, set[Kind]]
) -> None:
    listen = free_port()
    with Relay(tmp_path, listen, change=change) as relay:
        verdicts = probe(relay.port, listen, *wanted)
    assert kinds(verdicts) == wanted
    assert {one.kind for one in advise(list(verdicts.values()))} == set.union(*wanted.values())


def test_our_plugin_in_kamailio_leaves_every_canary_intact(network: Network) -> None:
    target = network.provider("target", spc="123T", policy={})
    listen = free_port()
    verifier: KamailioServer = network.kamailio(target, inside_peer=f"sip:{LOOPBACK}:{listen}")
    assert kinds(probe(verifier.outside_port, listen)) == {canary.name: {INTACT} for canary in CANARIES}


# --- FreeSWITCH -------------------------------------------------------------------------------

PREFIX = "FREESWITCH_PREFIX"


def freeswitch_program() -> str | None:
    prefix = os.environ.get(PREFIX)
    return shutil.which("freeswitch", path=f"{prefix}/bin") if prefix else shutil.which("freeswitch")


CONFIG = """<document type="freeswitch/xml">
<section name="configuration">
<configuration name="switch.conf"><settings>
<param name="rtp-start-port" value="28000"/><param name="rtp-end-port" value="28999"/>
</settings></configuration>
<configuration name="modules.conf"><modules>
<load module="mod_logfile"/><load module="mod_commands"/><load module="mod_dptools"/>
<load module="mod_dialplan_xml"/><load module="mod_sofia"/>
</modules></configuration>
<configuration name="logfile.conf"><profiles><profile name="default">
<settings><param name="logfile" value="{folder}/freeswitch.log"/></settings>
<mappings><map name="all" value="info,notice,warning,err,crit,alert"/></mappings>
</profile></profiles></configuration>
<configuration name="sofia.conf"><profiles><profile name="probe"><settings>
<param name="sip-ip" value="127.0.0.1"/><param name="rtp-ip" value="127.0.0.1"/><param name="sip-port" value="{port}"/>
<param name="dialplan" value="XML"/><param name="context" value="probe"/><param name="auth-calls" value="false"/>
<param name="codec-prefs" value="PCMU,PCMA"/><param name="rtp-timer-name" value="soft"/>
<param name="enable-3pcc" value="true"/><param name="parse-all-invite-headers" value="true"/>
</settings></profile></profiles></configuration>
</section>
<section name="dialplan"><context name="probe">
{extension}
<extension name="probe">
<condition field="destination_number" expression="^(\\+?\\d+)$">
{actions}
<action application="bridge" data="sofia/probe/$1@127.0.0.1:{listen}"/>
</condition></extension></context></section>
</document>
"""


class FreeSwitch(Server):
    """A FreeSWITCH with one profile that bridges every call to one place."""

    def __init__(self, program: str, folder: Path, listen: int, actions: str, extension: str) -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        text = CONFIG.format(port=self.port, listen=listen, actions=actions, folder=folder, extension=extension)
        (folder / "freeswitch.xml").write_text(text)
        command = [program, "-nf", "-nc", "-nonat"]
        for option in ("conf", "log", "db", "run"):
            command += [f"-{option}", str(folder)]
        super().__init__("output", command, folder, {})

    def is_ready(self) -> bool:
        # It answers SIP before it takes calls.
        log = self.folder / "freeswitch.log"
        return log.exists() and "FreeSWITCH Started" in log.read_text("utf-8", "replace") and answers_sip(self.port)


@pytest.fixture
def freeswitch(tmp_path: Path) -> Iterator[Any]:
    """A function that starts a FreeSWITCH; skips where there is none."""
    program = freeswitch_program()
    if program is None:
        # Not an error under SHAKEN_REQUIRE_ALL either: Debian has no package of it.
        pytest.skip(f"no FreeSWITCH: it is neither on PATH nor in ${PREFIX}/bin")
    with ExitStack() as stack:
        yield lambda listen, actions="", extension="": stack.enter_context(
            FreeSwitch(program, tmp_path / "fs", listen, actions, extension)
        )


def test_freeswitch_as_it_comes_doubles_and_re_encodes(freeswitch: Any) -> None:
    listen = free_port()
    verdicts = probe(freeswitch(listen).port, listen)
    dates, first, respelled, gone = Kind.DATE_CHANGED, Kind.FIRST_ONLY, Kind.RESPELLED, Kind.STRIPPED
    assert kinds(verdicts) == {
        **{name: {DOUBLE} for name in ("one", "no-sdp", "unknown-parameters", "unquoted-ppt", "full-baseline")},
        **{name: {DOUBLE} for name in ("1k", "2k", "4k", "8k", "refer")},
        "control": {INTACT}, "date": {DOUBLE, dates}, "two": {first, DOUBLE}, "three": {first, DOUBLE},
        "compact-name": {gone}, "compact-two": {gone}, "mixed-names": {gone, DOUBLE},
        "unknown-between": {DOUBLE, Kind.ALTERED}, "info-semicolon": {DOUBLE, Kind.ALTERED},
        "info-last": {DOUBLE, respelled},
        "compact-passport": {DOUBLE, dates}, "folded": {DOUBLE, respelled}, "reinvite": {Kind.NOT_PASSED_ON},
    }  # fmt: skip
    assert product_of(verdicts["one"].server) is FREESWITCH
    assert any("exclude_outgoing_extra_header" in one.text for one in advise(list(verdicts.values())))


ONCE = '<action application="export" data="nolocal:exclude_outgoing_extra_header=(?i)^sip_h_identity$"/>'


def test_what_is_advised_for_freeswitch_helps(freeswitch: Any) -> None:
    listen = free_port()
    switch = freeswitch(listen, ONCE)
    wanted = {
        "one": {INTACT},
        "unknown-parameters": {INTACT},
        "8k": {INTACT},
        "refer": {INTACT},
        "two": {Kind.FIRST_ONLY},
    }
    assert kinds(probe(switch.port, listen, *wanted)) == wanted
    assert kinds(probe(switch.port, listen, "one", "8k", transport="tcp")) == {"one": {INTACT}, "8k": {INTACT}}


# --- What docs/probe.md tells to write --------------------------------------------------------

NOWHERE = 9


def documented(begin: str, listen: int) -> str:
    """A block of the document, for a listener here."""
    text = (Path(__file__).parents[2] / "docs" / "probe.md").read_text("utf-8")
    (block,) = [one for one in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) if one.startswith(begin)]
    assert "192.0.2.20:5090" in block
    return str(block).replace("192.0.2.20:5090", f"{LOOPBACK}:{listen}").replace("sofia/external", "sofia/probe")


def test_the_route_for_kamailio_in_the_document_leads_to_the_listener(tmp_path: Path) -> None:
    listen = free_port()
    with Relay(tmp_path, NOWHERE, change=documented("if (is_method", listen)) as relay:
        assert kinds(probe(relay.port, listen, "control", "one")) == {"control": {INTACT}, "one": {INTACT}}


def test_the_extension_for_freeswitch_in_the_document_leads_to_the_listener(freeswitch: Any) -> None:
    listen = free_port()
    switch = freeswitch(NOWHERE, extension=documented("<extension", listen))
    assert kinds(probe(switch.port, listen, "control", "one")) == {"control": {INTACT}, "one": {DOUBLE}}


# --- The scenarios to use by hand -------------------------------------------------------------

PLAN = dial_plan("US")
CALLER, CALLED = "+12155551212", "+12025550143"


def values_of(name: str, signer: Signer) -> list[str]:
    """The Identity values of a canary for the numbers of the scenarios."""
    return [line.unfolded for line in signer.sign(BY_NAME[name], CALLER, CALLED, time.time())]


def scenario_keys() -> dict[str, str]:
    signer = Signer.new(time.time())
    one, two, three = values_of("three", signer)
    token, _, rest = two.partition(";info=<")
    return {
        "identity": one, "identity2": two, "identity3": three, "token": token, "info": rest.partition(">")[0],
        "target": "+12025550144",
    }  # fmt: skip


SCENARIOS = ("one", "several", "compact", "parameters", "long", "reinvite", "refer")


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_scenarios_show_what_kamailio_leaves_intact(network: Network, name: str) -> None:
    called = network.called("uas_probe")
    with Relay(network.folder / "relay", called.port) as relay:
        run = network.call(f"uac_probe_{name}", relay.port, keys=scenario_keys(), label=name, arguments=("-aa",))
    assert (run.counts.successful, run.counts.failed) == (1, 0), run.errors
    records = [read_messages((network.folder / f"{name}.msg").read_bytes()), read_messages(called.trace.read_bytes())]
    (verdict,) = from_records(records[0], records[1], PLAN).verdicts
    assert verdict.kinds == {INTACT}
    within = [message.first_line.partition(" ")[0] for message in called.messages() if not message.sent]
    assert ("REFER" in within, within.count("INVITE")) == (name == "refer", 2 if name == "reinvite" else 1)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("one", {DOUBLE}),
        ("several", {DOUBLE, Kind.FIRST_ONLY}),
        ("compact", {Kind.STRIPPED}),
        ("parameters", {DOUBLE, Kind.ALTERED}),
        ("long", {DOUBLE}),
        ("reinvite", {DOUBLE}),
    ],
)
def test_the_scenarios_show_what_freeswitch_does(
    network: Network, freeswitch: Any, name: str, wanted: set[Kind]
) -> None:
    called = network.called("uas_probe")
    run = network.call(f"uac_probe_{name}", freeswitch(called.port).port, keys=scenario_keys(), label=name)
    assert (run.counts.successful, run.counts.failed) == (1, 0), run.errors
    records = [read_messages((network.folder / f"{name}.msg").read_bytes()), read_messages(called.trace.read_bytes())]
    (verdict,) = from_records(records[0], records[1], PLAN).verdicts
    assert verdict.kinds == wanted

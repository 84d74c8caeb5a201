"""``shaken probe``: what a PBX, SBC or trunk does to Identity headers."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from shaken_plugin.cli.output import EXISTING_FILE, Exit, console, errors, fail, json_option, print_json, table, visible
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.core.telephone import DialPlan
from shaken_plugin.probe.advice import PRODUCTS, Advice, advise, by_name
from shaken_plugin.probe.canaries import BY_NAME, CALLER, CANARIES, FIRST_CALLED, Canary, Signer, number_after
from shaken_plugin.probe.capture import CaptureError, Losses, read_capture
from shaken_plugin.probe.findings import Grade, Verdict
from shaken_plugin.probe.message import Message
from shaken_plugin.probe.passive import Watched, from_capture, from_records
from shaken_plugin.probe.play import Options
from shaken_plugin.probe.records import MAX_FILE, read_messages
from shaken_plugin.probe.report import as_data, as_html
from shaken_plugin.probe.session import Session
from shaken_plugin.probe.transport import ProbeError, local_address

LISTEN_PORT: Final = 5090
"""Where the PBX must send the canaries, unless the user says otherwise."""

PORTS: Final = {"udp": 5060, "tcp": 5060, "tls": 5061}

ACTIVE_ONLY: Final = (
    "transport", "listen", "caller", "called", "user", "names", "timeout", "mtu", "tls_ca", "tls_insecure"
)  # fmt: skip
"""Parameters without a meaning where nothing is sent. A password may stand in the environment."""

STYLES: Final = {Grade.GOOD: "green", Grade.NOTE: "", Grade.WARNING: "yellow", Grade.BAD: "bold red"}


class HostPort(click.ParamType):  # type: ignore[type-arg]  # it is generic from click 8.4 on only
    """``HOST``, ``HOST:PORT`` or ``[IPV6]:PORT``; the port is 0 where there is none."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """See `click.ParamType.convert`."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", str(value))
        if match is None or int(match.group(2) or 0) > 65_535:
            self.fail(f"{value!r} is not HOST or HOST:PORT", param, ctx)
        return match.group(1).strip("[]"), int(match.group(2) or 0)


class Number(click.ParamType):  # type: ignore[type-arg]  # likewise
    """A number with its country code."""

    name = "+number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType.convert`."""
        if re.fullmatch(r"\+[0-9]{4,15}", str(value)) is None:
            self.fail(f"{value!r} is not a number such as {CALLER}", param, ctx)
        return str(value)


@click.command()
@click.option("--via", type=HostPort(), help="The PBX, SBC or trunk: canaries are sent there.")
@click.option("--transport", type=click.Choice(["udp", "tcp", "tls"]), default="udp", show_default=True)
@click.option(
    "--listen", type=HostPort(), show_default=f"this host's address towards the PBX, port {LISTEN_PORT}",
    help="Where the PBX must send the canaries: UDP and TCP; TLS on the next port.",
)  # fmt: skip
@click.option("--from", "caller", type=Number(), default=CALLER, show_default=True, help="Calling number.")
@click.option("--to", "called", type=Number(), help="One called number for all canaries; default: one each.")
@click.option("--user", help="Account, where the PBX asks for one.")
@click.option("--password", envvar="SHAKEN_PROBE_PASSWORD", help="Its password; better in $SHAKEN_PROBE_PASSWORD.")
@click.option(
    "--canary",
    "names",
    multiple=True,
    type=click.Choice(list(BY_NAME)),
    metavar="NAME",
    help="Only this one; may be repeated. Names: docs/probe.md, or an unknown one.",
)
@click.option(
    "--timeout", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, help="Seconds for an answer."
)
@click.option(
    "--mtu", type=click.IntRange(576, 65_535), help="Bytes of an IP packet on the way; default: what the system knows."
)
@click.option("--tls-ca", type=EXISTING_FILE, help="CA (PEM) of the PBX's certificate; default: those of the system.")
@click.option("--tls-insecure", is_flag=True, help="Do not check the PBX's certificate.")
@click.option("--before", help="A record of calls before the PBX; with --pcap the address calls come from.")
@click.option("--after", help="A record of the same calls behind it; with --pcap the address they go to.")
@click.option("--pcap", type=EXISTING_FILE, help="A capture (pcap, pcapng) with both sides of the PBX.")
@click.option("--country", default="US", show_default=True, help="Dial plan: which spellings are one number.")
@click.option(
    "--product", type=click.Choice([product.name for product in PRODUCTS], case_sensitive=False),
    help="What the PBX is; default: what it says itself.",
)  # fmt: skip
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a report with ladders, too.")
@json_option
def probe(**options: Any) -> None:
    """Show what a PBX, SBC or trunk does to the Identity headers of calls.

    Actively: --via HOST sends calls with known Identity headers through it to a listener of ours.
    The PBX must send the canary numbers (+12025550100 and up, or the one of --to) to the listener:

    \b
      FreeSWITCH  <condition field="destination_number" expression="^(\\+?12025550\\d{3})$">
                  <action application="bridge" data="sofia/external/$1@LISTENER:5090"/>
      Asterisk    exten => _+12025550XXX,1,Dial(PJSIP/${EXTEN}@probe)
      Kamailio    if ($rU =~ "^\\+?12025550") { $du = "sip:LISTENER:5090"; t_relay(); exit; }

    Passively: --before FILE --after FILE compares two records of calls, --pcap FILE both sides in
    one capture. Nothing is sent then.

    Exit codes: 0 all preserved, 1 something was not, 2 wrong usage, 3 nothing could be probed.
    """  # noqa: D301  # click wants the control character
    plan = _plan(options["country"])
    passive = options["pcap"] is not None or options["before"] is not None or options["after"] is not None
    if passive == (options["via"] is not None):
        raise click.UsageError("give --via, or --before and --after, or --pcap")
    if options["html"]:
        _check_writable(options["html"])  # before all the calls, not behind them
    watched, losses = None, Losses()
    strangers: Mapping[str, int] = {}
    if passive:
        _refuse_active_options()
        watched = _watch(options, plan, losses)
        verdicts, title, ends = watched.verdicts, "Identity headers before and behind a PBX", ("before", "PBX", "after")
    else:
        verdicts, ends, strangers = _send(options, plan)
        title = f"Identity headers through {ends[1]}"
    product = by_name(options["product"]) if options["product"] else None
    advice = advise(verdicts, product)
    if options["as_json"]:
        print_json(
            as_data(verdicts, advice) | (_counts(watched, losses) if watched else {"strangers": dict(strangers)})
        )
    else:
        _print(verdicts, advice, watched)
        _print_losses(losses)
        for host, count in strangers.items():
            text = f"{count} calls from {host} at the listener were not of this run: answered with 404"
            console.print(text, style="yellow", markup=False)
    if options["html"]:
        _write(options["html"], as_html(verdicts, advice, title=title, now=time.time(), ends=ends))
    if not verdicts or (not passive and not any(verdict.after for verdict in verdicts)):
        sys.exit(Exit.MISSING)
    # INVITEs that fit no call may be those of a call that was changed beyond recognition.
    preserved = all(verdict.preserved for verdict in verdicts) and not (watched and watched.unmatched)
    sys.exit(Exit.YES if preserved else Exit.NO)


def _plan(country: str) -> DialPlan:
    try:
        return dial_plan(country)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--country") from exc


def _refuse_active_options() -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and parameter.name in ACTIVE_ONLY:
            raise click.UsageError(f"{parameter.opts[0]} has no effect without --via: nothing is sent")


def _check_writable(path: Path) -> None:
    try:
        path.open("a").close()
    except OSError as exc:
        fail(f"{path}: {exc.strerror}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as exc:
        fail(f"{path}: {exc.strerror}")


# --- Active -----------------------------------------------------------------------------------


def _send(options: dict[str, Any], plan: DialPlan) -> tuple[list[Verdict], tuple[str, str, str], Mapping[str, int]]:
    """Play the canaries; the verdicts, the names of the three ends, and calls of others by their host."""
    transport = options["transport"]
    name, port = options["via"]
    host, listen_port = options["listen"] or ("", 0)
    via = (_resolved(name, host), port or PORTS[transport])
    try:
        # What stands in Contact must be an address: of the wildcards, the one towards the PBX.
        own = local_address(*via) if host in {"", "0.0.0.0", "::"} else host  # noqa: S104  # not bound to
        listen = (own, listen_port or LISTEN_PORT)
        client, server = _tls(options, listen[0]) if transport == "tls" else (None, None)
        chosen = [BY_NAME[one] for one in options["names"]] or list(CANARIES)
        _check_numbers(options, chosen, plan)
        given = Options(
            via=via, listen=listen, plan=plan, name=name, transport=transport, caller=options["caller"],
            called=options["called"], user=options["user"], password=options["password"] or "",
            timeout=options["timeout"], mtu=options["mtu"], tls_client=client, tls_server=server,
        )  # fmt: skip
        session = Session(given, chosen, Signer.new(time.time()))
        with _progress(len(chosen), quiet=options["as_json"]) as progress:
            verdicts = asyncio.run(session.run(progress))
    except ProbeError as exc:
        fail(str(exc))
    return verdicts, ("probe", f"{name}:{via[1]}", f"{listen[0]}:{listen[1]}"), session.strangers


def _check_numbers(options: dict[str, Any], chosen: list[Canary], plan: DialPlan) -> None:
    last = options["called"] or number_after(FIRST_CALLED, 2 * len(chosen))
    for number in (options["caller"], last):
        if plan.is_emergency(plan.canonical(number)):
            raise click.UsageError(f"{number} reaches an emergency service")


def _resolved(name: str, listen: str) -> str:
    """An address of the PBX, of the family that is listened on."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET if listen else socket.AF_UNSPEC
    try:
        found = socket.getaddrinfo(name, None, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as exc:
        fail(f"{name}: {getattr(exc, 'strerror', None) or 'not a host name'}")
    return str(found[0][4][0])


def _tls(options: dict[str, Any], host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts towards the PBX and for our listener, which has a certificate of its own making."""
    import trustme  # noqa: PLC0415  # only here

    try:
        client = ssl.create_default_context(cafile=str(options["tls_ca"]) if options["tls_ca"] else None)
    except OSError:
        fail(f"{options['tls_ca']}: no certificate in PEM that can be read")
    if options["tls_insecure"]:
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA(organization_name="shaken probe").issue_cert(host).configure_cert(server)
    return client, server


@contextlib.contextmanager
def _progress(count: int, *, quiet: bool) -> Iterator[Callable[[Verdict], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True, disable=quiet or not errors.is_terminal) as bar:
        task = bar.add_task("sending", total=count)
        yield lambda verdict: bar.update(task, advance=1, description=verdict.name)


# --- Passive ----------------------------------------------------------------------------------


def _watch(options: dict[str, Any], plan: DialPlan, losses: Losses) -> Watched:
    before, after = options["before"], options["after"]
    if options["pcap"] is not None:
        before, after = _address("--before", before), _address("--after", after)
        try:
            return from_capture(read_capture(_bytes(options["pcap"]), losses), plan, before, after)
        except CaptureError as exc:
            fail(f"{options['pcap']}: {exc}")
    if before is None or after is None:
        raise click.UsageError("--before and --after go together")
    return from_records(_record(Path(before)), _record(Path(after)), plan)


def _address(option: str, text: str | None) -> str | None:
    """``ADDRESS``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``, spelled as captures are."""
    if text is None:
        return None
    match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+):([0-9]{1,5})", text)
    host, port = (match.group(1) or match.group(3), match.group(2) or match.group(4)) if match else (text, None)
    try:
        address = ipaddress.ip_address(host)
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is not ADDRESS or ADDRESS:PORT", param_hint=option) from exc
    if port is None:
        return str(address)
    return f"[{address}]:{int(port)}" if address.version == 6 else f"{address}:{int(port)}"


def _record(path: Path) -> list[Message]:
    messages = list(read_messages(_bytes(path)))
    if not messages:
        fail(f"{path}: there is no SIP message in it")
    return messages


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as exc:
        fail(f"{path}: {exc.strerror}")
    if len(data) > MAX_FILE:
        fail(f"{path}: longer than {MAX_FILE // 1024 // 1024} MiB; cut it, for instance with: editcap -c 1000000")
    return data


def _counts(watched: Watched, losses: Losses) -> dict[str, Any]:
    return {
        "unsigned": watched.unsigned, "unmatched": watched.unmatched, "reason": watched.reason or None,
        "unreadable_packets": losses.packets, "tcp_gaps": losses.gaps,
    }  # fmt: skip


# --- For people -------------------------------------------------------------------------------


def _print(verdicts: list[Verdict], advice: list[Advice], watched: Watched | None) -> None:
    rows = table("call", "what", "bytes", "finding", "still verifies", "detail")
    for verdict in verdicts:
        check = verdict.verification
        verifies = "" if check is None else "yes" if check.holds else f"no: {check.code}"
        for index, finding in enumerate(verdict.findings):
            size = str(len(verdict.before.message.raw))
            first = (verdict.name, verdict.what, size) if not index else ("", "", "")
            kind = visible(finding.kind.title)
            kind.stylize(STYLES[finding.kind.grade] or "none")
            rows.add_row(*map(visible, first), kind, visible(verifies if not index else ""), visible(finding.text))
    console.print(rows)
    _print_diffs(verdicts)
    preserved = sum(verdict.preserved for verdict in verdicts)
    style = "bold green" if preserved == len(verdicts) and verdicts else "bold red"
    console.print(f"{preserved} of {len(verdicts)} calls preserved", style=style, markup=False)
    if watched is not None:
        text = f"{watched.unsigned} calls without Identity, {watched.unmatched} INVITEs behind the PBX that fit no call"
        console.print(text, markup=False)
        if watched.reason:
            console.print(visible(f"Nothing could be judged: {watched.reason}"), style="yellow")
    elif not any(verdict.after for verdict in verdicts):
        text = "No call reached the listener: does the PBX send the canary numbers there? See shaken probe --help"
        console.print(text, style="yellow", markup=False)
    server = next((verdict.server for verdict in verdicts if verdict.server), "")
    if advice:
        console.print(visible(f"What to change{f' in {server}' if server else ''}:"))
    for one in advice:
        console.print(visible(f"  {one.kind.title}: {one.text} ({one.source.value})"))


def _print_losses(losses: Losses) -> None:
    if losses.gaps:
        text = f"{losses.gaps} gaps in TCP streams: segments that were not captured; calls in them are missing here"
        console.print(text, style="yellow", markup=False)
    if losses.packets:
        text = f"{losses.packets} packets could not be read: damaged, or nested too deeply"
        console.print(text, style="yellow", markup=False)


def _print_diffs(verdicts: Iterable[Verdict]) -> None:
    for verdict in verdicts:
        for finding in verdict.findings:
            if finding.diff and finding.kind.grade is not Grade.NOTE:
                console.print(visible(f"{verdict.name}: {finding.kind.title}"), style="bold")
                for line in finding.diff:
                    console.print(visible(f"  {line}"))

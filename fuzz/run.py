"""Fuzz every parser of what comes from the wire: ``make fuzz``, or

    python fuzz/run.py [--seconds 600] [--jobs 2] [TARGET …]

The first corpus is made from the conformance cases, the public vectors and the real certificates of
the tests; what is found on the way is kept in ``.fuzz/`` for the next run. Ends with 1 and the path
of the input where a parser failed; such an input becomes a test.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SCRATCH = ROOT / ".fuzz"
NAMES = (
    "header",
    "token",
    "call",
    "certificate",
    "tnauthlist",
    "constraints",
    "revocation_list",
    "trust_list",
    "record",
    "capture",
    "event_socket",
)
EXTENSIONS = {
    "1.3.6.1.5.5.7.1.26": "tnauthlist",
    "1.3.6.1.5.5.7.1.27": "constraints",
    "1.3.6.1.5.5.7.1.33": "constraints",
}
"""Targets by the extension whose value they read."""


def seeds() -> Iterator[tuple[str, bytes]]:
    """(target, input) pairs from the data of the tests."""
    for file in sorted((ROOT / "tests").rglob("cases*.json")):
        for case in json.loads(file.read_text("utf-8")).get("cases", []):
            raw = str(case["request"]["raw"])
            yield "call", raw.encode()
            for value in re.findall(r"^(?:Identity|y)\s*:\s*(.*)$", raw, re.MULTILINE | re.IGNORECASE):
                yield "header", value.strip().encode()
                yield "token", value.partition(";")[0].strip().encode()
            for answer in case.get("cert_bodies", {}).values():
                yield "certificate", str(answer.get("body", "")).encode()
            yield from _lists(case)
    for file in sorted((ROOT / "tests" / "pki").rglob("*.*")):
        if file.suffix in {".pem", ".der"}:
            yield "certificate", file.read_bytes()
            yield from _extensions(file.read_bytes())
    yield from _made()


def _lists(case: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    for text in re.findall(r"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", json.dumps(case.get("crl"))):
        yield "revocation_list", text.encode().decode("unicode_escape").encode()
    for text in re.findall(r'"(MI[A-Za-z0-9+/=]{80,})"', json.dumps(case.get("crl"))):
        yield "revocation_list", base64.b64decode(text)


def _extensions(document: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        for certificate in x509.load_pem_x509_certificates(document):
            for extension in certificate.extensions:
                if target := EXTENSIONS.get(extension.oid.dotted_string):
                    yield target, getattr(extension.value, "value", b"")
    except (ValueError, TypeError):
        return


def _made() -> Iterator[tuple[str, bytes]]:
    """A revocation list and a trust list of the lab, and constraints."""
    from shaken_plugin.core.constraints import ClaimConstraints
    from shaken_plugin.core.jws import b64url
    from shaken_plugin.lab.pki import Authority

    yield from _recorded()
    answer = b"Content-Type: command/reply\nReply-Text: +OK\nCaller-Caller-ID-Number: %2B12155551212\n\n"
    event = b"Content-Type: text/event-plain\nContent-Length: 26\n\nEvent-Name: CHANNEL_HANGUP\n\n"
    yield "event_socket", answer + event + b"Content-Type: api/response\nContent-Length: 3\n\n+OK"
    yield "event_socket", b"Content-Type: text/disconnect-notice\nContent-Disposition: linger\n\n" + answer
    authority = Authority.new(time.time())
    body = {"version": "1", "sequence": 1, "exp": 4_000_000_000, "trustList": [authority.root_pem.decode()]}
    parts = [json.dumps(part).encode() for part in ({"alg": "ES256", "typ": "JWT"}, body)]
    yield "trust_list", ".".join([*map(b64url, parts), b64url(bytes(64))]).encode()
    constraints = ClaimConstraints(("attest",), (("attest", frozenset("AB")),), ("rcd",))
    yield "constraints", constraints.to_der()
    yield "constraints", ClaimConstraints(("attest",), (("origid", frozenset({"x"})),)).to_der()
    certificate = authority.issue(spc="709J", now=time.time(), numbers=("12155551212",), ranges=(("12155550000", 9),))
    yield "certificate", certificate.chain
    yield "certificate", x509.load_pem_x509_certificates(certificate.chain)[0].public_bytes(Encoding.DER)


def _recorded() -> Iterator[tuple[str, bytes]]:
    """Canaries of the probe before and behind a PBX, and a capture of them."""
    from io import BytesIO

    import dpkt

    from shaken_plugin.probe.canaries import CALLER, CANARIES, Signer
    from shaken_plugin.probe.dialogs import Dialog, Place

    signer, called = Signer.new(time.time()), "+12025550143"
    for canary in CANARIES:
        dialog = Dialog.of_caller(
            Place("192.0.2.1", 5060, "udp"), caller=CALLER, called=called, host="p", call_id="c@h"
        )
        sent = dialog.request("INVITE", signer.sign(canary, CALLER, called, time.time()))
        yield "record", sent + b"\0" + sent.replace(b"c@h", b"d@h").replace(b"Identity", b"y")
        file = BytesIO()
        writer = dpkt.pcap.Writer(file, linktype=dpkt.pcap.DLT_RAW)
        for number in (1, 2):
            datagram = dpkt.udp.UDP(sport=5060, dport=5060, data=sent, ulen=8 + len(sent))
            packet = dpkt.ip.IP(src=bytes([192, 0, 2, number]), dst=bytes([192, 0, 2, number + 1]), p=17, data=datagram)
            packet.len = len(packet)
            writer.writepkt(bytes(packet), ts=number)
        yield "capture", file.getvalue()


def fuzz(name: str, seconds: int) -> tuple[str, int, str]:
    """One target; its name, exit status, and the end of its output."""
    corpus = SCRATCH / name
    command = [sys.executable, str(HERE / "targets.py"), name, str(corpus), f"-max_total_time={seconds}"]
    command += [f"-artifact_prefix={SCRATCH / name}-", "-timeout=5", "-rss_limit_mb=2048", "-max_len=65536"]
    command += ["-print_final_stats=1"]
    done = subprocess.run(command, cwd=SCRATCH, capture_output=True, text=True, errors="replace", check=False)
    return name, done.returncode, done.stdout + done.stderr


def main() -> int:
    """Fuzz, tell, and end with 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=600, help="for each target (default: 600)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at the same time")
    parser.add_argument("targets", nargs="*", default=NAMES, metavar="TARGET")
    options = parser.parse_args()
    counts = dict.fromkeys(options.targets, 0)
    for name, data in seeds():
        if name in counts and data:
            folder = SCRATCH / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"seed-{counts[name]:05}").write_bytes(data)
            counts[name] += 1
    failed = 0
    print(f"{len(counts)} targets, {options.seconds} s each, {options.jobs} at a time; corpus: {counts}", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, status, output in pool.map(lambda name: fuzz(name, options.seconds), options.targets):
            runs = re.search(r"number_of_executed_units: *(\d+)", output)
            outcome = "FAILED" if status else "nothing found"
            print(f"{name}: {outcome}, {runs.group(1) if runs else '?'} runs", flush=True)
            if status:
                failed += 1
                print(output[-4_000:], flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

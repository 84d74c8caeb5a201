"""Keys and trust anchors of the store in a real Kamailio: taken over by every worker without reload."""

from __future__ import annotations

import time
from pathlib import Path

from click.testing import CliRunner

from shaken_plugin.cli import main
from shaken_plugin.core.identity import IdentityHeader
from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import CERTIFICATE_HOST, SPC
from tests.e2e.conftest import Network, logged

WHY = ("--why", "ticket 4711", "--by", "anna")


def shaken(*arguments: object) -> None:
    """Run the command, which must do it."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def make_kek(folder: Path) -> str:
    """A key-encryption key as its reference."""
    folder.mkdir()
    shaken("key", "new-encryption", folder / "kek")
    return f"file:{folder / 'kek'}"


def test_every_worker_signs_with_a_key_that_was_added_from_the_next_call_on(network: Network, tmp_path: Path) -> None:
    source = tmp_path / "source"
    provider = network.provider("origin", keys={"encryption": make_kek(source)})
    called = network.called()
    signer = network.kamailio(provider, outside_peer=called.uri, workers=4)
    network.call("uac_call", signer.inside_port, calls=20, rate=100)
    new = network.authority.issue(spc=SPC, now=time.time())
    (source / "new.key").write_bytes(new.key)
    (source / "new.pem").write_bytes(new.chain)
    x5u = f"https://{CERTIFICATE_HOST}/new.pem"
    files = ("--key", f"file:{source / 'new.key'}", "--chain", f"file:{source / 'new.pem'}", "--x5u", x5u)
    settings = ("--settings", provider.settings)
    shaken("key", "add", "new", "--credential", "main", *files, *WHY, *settings)
    network.call("uac_call", signer.inside_port, calls=20, rate=100)
    shaken("key", "remove", "new", *WHY, *settings)
    network.call("uac_call", signer.inside_port, calls=20, rate=100)
    urls = [IdentityHeader.parse(invite.header("Identity")[0]).info for invite in called.invites()]
    assert urls == [provider.x5u] * 20 + [x5u] * 20 + [provider.x5u] * 20


def test_a_verifier_believes_an_anchor_of_the_store_within_a_second_and_no_longer_than_it_is_there(
    network: Network, tmp_path: Path
) -> None:
    foreign = Authority.new(time.time(), name="Foreign")
    (tmp_path / "roots.pem").write_bytes(foreign.root_pem)
    called = network.called()
    receiver = network.provider("receiver", verification={"stored_anchors": True})
    verifier = network.kamailio(receiver, inside_peer=called.uri)
    origin = network.provider("origin")
    issued = foreign.issue(spc=SPC, now=time.time())
    (origin.folder / "signing.key").write_bytes(issued.key)
    (origin.folder / "chain.pem").write_bytes(issued.chain)
    receiver.publish(origin.x5u, issued.chain)
    signer = network.kamailio(origin, outside_peer=f"sip:127.0.0.1:{verifier.outside_port}")

    def result() -> object:
        return logged(verifier, network.call("uac_call", signer.inside_port), "verify").get("code")

    assert result() == "certificate_untrusted"
    settings = ("--settings", receiver.settings)
    shaken("anchors", "add", "foreign", "--file", f"file:{tmp_path / 'roots.pem'}", *WHY, *settings)
    time.sleep(1.0)  # what the document allows
    assert result() is None
    shaken("anchors", "remove", "foreign", *WHY, *settings)
    time.sleep(1.0)
    assert result() == "certificate_untrusted"

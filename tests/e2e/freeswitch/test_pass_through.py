"""Identity fields that came leave once, in order, unharmed; under the full name where that loses nothing."""

from __future__ import annotations

import pytest

from shaken_plugin.adapters.freeswitch.headers import passes_unharmed
from shaken_plugin.lab.freeswitch import HOOK, FreeSwitchServer, Way
from tests.e2e.conftest import Network
from tests.e2e.freeswitch.conftest import Start, action, choose, when
from tests.e2e.freeswitch.party import Message, Party

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJhdHRlc3QiOiJBIn0.MEUCIQ-_x9"
INFO = "info=<https://certificates.example.com/a.pem>"

# The name of each says what FreeSWITCH does with it under the full name.
VALUES = {
    "as most write it": f'{TOKEN};{INFO};alg=ES256;ppt="shaken"',
    "unquoted ppt": f"{TOKEN};{INFO};alg=ES256;ppt=shaken",
    "no alg": f"{TOKEN};{INFO};ppt=shaken",
    "no ppt": f"{TOKEN};{INFO};alg=ES256",
    "info alone": f"{TOKEN};{INFO}",
    "port and path": f"{TOKEN};info=<https://c.example.com:8443/a/b%20c?d=e&f=g#h>;alg=ES256;ppt=shaken",
    "extension behind ppt": f"{TOKEN};{INFO};alg=ES256;ppt=shaken;x=1;y",
    "extension with a quoted value": f'{TOKEN};{INFO};alg=ES256;ppt=shaken;x="a b"',
    "extension with a quoted separator": f'{TOKEN};{INFO};alg=ES256;ppt=shaken;x="a;b"',
    "extension between": f"{TOKEN};{INFO};x=1;alg=ES256;ppt=shaken",
    "extension first": f"{TOKEN};x=1;{INFO};alg=ES256;ppt=shaken",
    "extension without ppt": f"{TOKEN};{INFO};alg=ES256;x=1",
    "ppt first": f"{TOKEN};ppt=shaken;{INFO};alg=ES256",
    "alg first": f"{TOKEN};alg=ES256;{INFO};ppt=shaken",
    "alg last": f"{TOKEN};{INFO};ppt=shaken;alg=ES256",
    "spaces around separators": f"{TOKEN} ; {INFO} ; alg=ES256 ; ppt=shaken",
    "space behind separator": f"{TOKEN}; {INFO};alg=ES256;ppt=shaken",
    "space before the URI": f"{TOKEN};info= <https://a.example.com/x>;alg=ES256;ppt=shaken",
    "no brackets": f"{TOKEN};info=https://a.example.com/x;alg=ES256;ppt=shaken",
    "semicolon in the URI": f"{TOKEN};info=<https://a.example.com/x;v=1>;alg=ES256;ppt=shaken",
    "alg= in the URI": f"{TOKEN};info=<https://a.example.com/x?alg=y>;alg=ES256;ppt=shaken",
    "ppt= in the URI": f"{TOKEN};info=<https://a.example.com/x?ppt=y>;alg=ES256;ppt=shaken",
    "info= in the URI": f"{TOKEN};info=<https://a.example.com/x?info=y>;alg=ES256;ppt=shaken",
    "upper case names": f"{TOKEN};INFO=<https://a.example.com/x>;ALG=ES256;PPT=shaken",
    "compact form of a token": f"..{TOKEN.rpartition('.')[2]};{INFO};alg=ES256;ppt=shaken",
    "quoted alg": f'{TOKEN};{INFO};alg="ES256";ppt="shaken"',
    "quoted token": f'"{TOKEN}";{INFO};alg=ES256;ppt=shaken',
    "base64 of old": f"a+b/c=;{INFO};alg=ES256",
    "ppt of one letter more": f"{TOKEN};{INFO};alg=ES256;ppt=div-o",
    "ppt with a digit": f"{TOKEN};{INFO};alg=ES256;ppt=x2",
    "token alone": TOKEN,
    "empty parameter": f"{TOKEN};{INFO};;alg=ES256;ppt=shaken",
    "trailing separator": f"{TOKEN};{INFO};alg=ES256;ppt=shaken;",
    "comma": f"{TOKEN};{INFO};alg=ES256;ppt=shaken,{TOKEN};{INFO}",
    "comma in an extension": f"{TOKEN};{INFO};alg=ES256;ppt=shaken;x=a,b",
    "alg= within an extension": f"{TOKEN};{INFO};ppt=shaken;xalg=1",
    "alg= in a quoted extension": f'{TOKEN};{INFO};ppt=shaken;x="alg=1"',
    "alg= behind alg": f"{TOKEN};{INFO};alg=ES256;ppt=shaken;xalg=1",
    "twice alg": f"{TOKEN};{INFO};alg=ES256;alg=ES384;ppt=shaken",
    "twice ppt": f"{TOKEN};{INFO};alg=ES256;ppt=shaken;ppt=div",
    "3 KB": f"{TOKEN}{'A' * 3_000};{INFO};alg=ES256;ppt=shaken",
    "20 KB": f"{TOKEN}{'A' * 20_000};{INFO};alg=ES256;ppt=shaken",
    "3 KB URI": f"{TOKEN};info=<https://a.example.com/{'x' * 3_000}>;alg=ES256;ppt=shaken",
}


CAUTIOUS = {"alg= behind alg", "quoted token", "base64 of old", "comma in an extension"}
"""What would survive, and goes under the compact name nevertheless: nobody writes it."""


def fields(values: list[str], name: str = "Identity") -> bytes:
    return "".join(f"{name}: {value}\r\n" for value in values).encode()


@pytest.fixture(scope="module")
def switches(start: Start, shared: Network, carrier: Party, way: Way) -> dict[str, FreeSwitchServer]:
    """By the setting: passes on what comes from outside, to the inside or, in an extension, to a gateway."""
    extensions = when("gateway", way.pass_through + action("bridge", "sofia/gateway/carrier/$1"))
    uncopied = action("set", "sip_copy_custom_headers=false")
    extensions += when("uncopied", uncopied + way.pass_through + action("bridge", "sofia/gateway/carrier/$1"))
    leaving = f"nolocal:{HOOK}={way.application.replace('sign', 'pass_through')}"
    extensions += when("leaving", uncopied + action("export", leaving) + action("bridge", "sofia/gateway/carrier/$1"))
    extensions += when("untouched", action("bridge", "sofia/gateway/carrier/$1"))
    return {
        name: start(
            shared.provider(f"origin-{name}", freeswitch={"identity_name": name}),
            outside_peer=carrier.target,
            inside_peer=carrier.target,
            from_outside=way.pass_through,
            dialplan={"outside": extensions},
        )
        for name in ("auto", "full", "compact")
    }


def passed(switch: FreeSwitchServer, caller: Party, carrier: Party, extra: bytes) -> Message:
    carrier.forget()
    assert caller.ask(switch.outside_port, extra).status == 200
    return carrier.invite()


@pytest.mark.parametrize("title", VALUES)
def test_under_the_full_name_exactly_what_the_model_says_survives(
    switches: dict[str, FreeSwitchServer], caller: Party, carrier: Party, title: str
) -> None:
    """Both errors count: a damaged value that the model takes for a sound one, and a needless compact name."""
    value = VALUES[title]
    arrived = passed(switches["full"], caller, carrier, fields([value])).all("Identity")
    assert (arrived == [value]) == (passes_unharmed(value) or title in CAUTIOUS), arrived


@pytest.mark.parametrize("title", VALUES)
def test_by_default_everything_survives(
    switches: dict[str, FreeSwitchServer], caller: Party, carrier: Party, title: str
) -> None:
    value = VALUES[title]
    invite = passed(switches["auto"], caller, carrier, fields([value]))
    assert invite.identity() == [value]
    assert invite.all("y") == ([] if passes_unharmed(value) else [value])


def test_several_in_order(switches: dict[str, FreeSwitchServer], caller: Party, carrier: Party) -> None:
    sound = [f"{TOKEN}{number};{INFO};alg=ES256;ppt=shaken" for number in range(10)]
    invite = passed(switches["auto"], caller, carrier, fields(sound))
    assert invite.all("Identity") == sound
    mixed = [*sound[:3], VALUES["extension first"], *sound[3:]]
    invite = passed(switches["auto"], caller, carrier, fields(mixed))
    assert (invite.all("y"), invite.all("Identity")) == (mixed, [])
    same = [sound[0]] * 3
    assert passed(switches["auto"], caller, carrier, fields(same)).identity() == same


def test_by_setting_under_one_name(switches: dict[str, FreeSwitchServer], caller: Party, carrier: Party) -> None:
    values = [VALUES["as most write it"], VALUES["extension first"]]
    invite = passed(switches["compact"], caller, carrier, fields(values))
    assert (invite.all("y"), invite.all("Identity")) == (values, [])
    invite = passed(switches["full"], caller, carrier, fields(values))
    assert invite.all("y") == []
    tokens = [value.partition(";")[0] for value in invite.all("Identity")]
    assert tokens == [TOKEN, TOKEN]


def test_the_compact_name_arrives_under_the_full_one(
    switches: dict[str, FreeSwitchServer], caller: Party, carrier: Party
) -> None:
    values = [VALUES["as most write it"], VALUES["unquoted ppt"]]
    assert passed(switches["auto"], caller, carrier, fields(values, "y")).all("Identity") == values
    both = fields(values[:1]) + fields(values[1:], "Y")
    assert passed(switches["auto"], caller, carrier, both).all("Identity") == values


def test_date_goes_along(switches: dict[str, FreeSwitchServer], caller: Party, carrier: Party) -> None:
    date = b"Date: Sat, 13 Nov 2010 23:29:00 GMT\r\n"
    invite = passed(switches["auto"], caller, carrier, fields([VALUES["info alone"]]) + date)
    assert invite.one("Date") == "Sat, 13 Nov 2010 23:29:00 GMT"


def test_what_freeswitch_does_without_us(switches: dict[str, FreeSwitchServer], caller: Party, carrier: Party) -> None:
    """The reason for all this; should a FreeSWITCH do better one day, this says so."""
    values = [VALUES["extension first"], VALUES["as most write it"]]
    arrived = passed(switches["auto"], caller, carrier, fields(values) + choose("untouched")).all("Identity")
    assert arrived != values
    assert len([value for value in arrived if value.startswith(TOKEN)]) == 2
    assert VALUES["as most write it"] not in arrived


def test_a_leg_that_copies_no_headers(switches: dict[str, FreeSwitchServer], caller: Party, carrier: Party) -> None:
    """With sip_copy_custom_headers=false the leg that leaves has to be asked itself."""
    for values in ([VALUES["as most write it"], VALUES["unquoted ppt"]], [VALUES["extension first"]]):
        assert passed(switches["auto"], caller, carrier, fields(values) + choose("gateway")).identity() == values
        assert passed(switches["auto"], caller, carrier, fields(values) + choose("uncopied")).identity() == []
        assert passed(switches["auto"], caller, carrier, fields(values) + choose("leaving")).identity() == values

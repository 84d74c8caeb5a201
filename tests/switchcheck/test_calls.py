"""What dialplan, profiles, gateways and variables do to calls."""

from __future__ import annotations

import pytest

from shaken_plugin.switchcheck import Check, Severity
from shaken_plugin.switchcheck.variables import is_true
from tests.switchcheck.switches import Switch

CARRIER = "sip_profiles/external/shaken-carrier.xml"
SIGN = "execute_on_originate_shaken=python shaken::sign"
HANDLER = '<variable name="execute_on_originate_shaken" value="python shaken::sign" direction="outbound"/>'


def test_the_shipped_files_loaded_as_the_readme_says_are_clean(switch: Switch) -> None:
    report = switch.check()
    assert list(map(str, report.findings)) == []
    assert report.python == "3.11"
    assert report.environment.source == "freeswitch.service with its drop-ins"
    assert not report.over_socket


def test_a_finding_says_where_what_and_by_which_name(switch: Switch) -> None:
    switch.replace(CARRIER, HANDLER, HANDLER + '\n<variable name="sip_stir_shaken_attest" value="A"/>')
    finding = switch.only(Check.NATIVE_SIGNING)
    file = switch.folder / CARRIER
    line = file.read_text().splitlines().index('<variable name="sip_stir_shaken_attest" value="A"/>  <!-- shaken -->')
    assert str(finding).startswith(
        f"{file}:{line + 1}:1: configuration sofia.conf > profile external > gateway carrier > "
        "variable sip_stir_shaken_attest: sets sip_stir_shaken_attest; take it out"
    )
    assert str(finding).endswith(" [native_signing]")
    assert finding.as_json()["code"] == "native_signing"
    assert finding.severity is Severity.PROBLEM


# --- FreeSWITCH's own STIR/SHAKEN -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("application", "data"),
    [
        ("set", "sip_stir_shaken_attest=A"),
        ("export", "nolocal:sip_stir_shaken_attest=B"),
        ("bridge", "{absolute_codec_string=PCMU,sip_stir_shaken_attest=C}sofia/gateway/carrier/$1"),
        ("bridge", "[sip_stir_shaken_attest='A']sofia/gateway/carrier/$1"),
        ("multiset", "a=b sip_stir_shaken_attest=A"),
    ],
)
def test_native_signing_in_the_dialplan(switch: Switch, application: str, data: str) -> None:
    switch.action(application, data)
    assert switch.only(Check.NATIVE_SIGNING).problem.line == 4


@pytest.mark.parametrize(
    ("application", "data"), [("unset", "sip_stir_shaken_attest"), ("set", "sip_stir_shaken_attest=")]
)
def test_taking_native_signing_away_is_none(switch: Switch, application: str, data: str) -> None:
    switch.action(application, data)
    assert switch.found() == {}


def test_native_signing_as_a_global_variable(switch: Switch) -> None:
    switch.replace("vars.xml", "domain=example.net", "sip_stir_shaken_attest=A")
    finding = switch.only(Check.NATIVE_SIGNING)
    assert (finding.problem.file, finding.problem.line) == (str(switch.folder / "vars.xml"), 2)


@pytest.mark.parametrize(
    ("application", "data"),
    [
        ("sofia_stir_shaken_vs", ""),
        ("execute_extension", "x"),
        ("set", "execute_on_media=sofia_stir_shaken_vs"),
    ],
)
def test_native_verification(switch: Switch, application: str, data: str) -> None:
    switch.action(application, data)
    assert list(switch.found()) == ([] if application == "execute_extension" else [Check.NATIVE_VERIFICATION])


def test_native_verification_as_a_gateways_variable(switch: Switch) -> None:
    switch.replace(CARRIER, HANDLER, HANDLER + '<variable name="execute_on_x" value="sofia_stir_shaken_vs"/>')
    switch.only(Check.NATIVE_VERIFICATION)


@pytest.mark.parametrize(
    ("file", "before", "within"),
    [
        ("autoload_configs/sofia.conf.xml", "<profiles>", "<global_settings>{}</global_settings><profiles>"),
        ("sip_profiles/external.xml", "<settings>", "<settings>{}"),  # where FreeSWITCH does not even read it
    ],
)
def test_native_parameters(switch: Switch, file: str, before: str, within: str) -> None:
    switch.replace(file, before, within.format('<param name="stir-shaken-as-key" value="k"/>'))
    assert "stir-shaken-as-key" in switch.only(Check.NATIVE_PARAMETER).problem.message


# --- Headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dropped"), [("false", True), ("no", True), ("0", True), ("true", False), ("1", False)]
)
def test_headers_are_dropped(switch: Switch, value: str, dropped: bool) -> None:
    switch.action("set", f"sip_copy_custom_headers={value}")
    assert list(switch.found()) == [Check.HEADERS_DROPPED] * dropped


@pytest.mark.parametrize(
    ("value", "true"),
    [
        ("Yes", True),
        ("on", True),
        ("t", True),
        ("allow", True),
        ("2", True),
        ("0.5", False),
        ("1x", False),
        ("", False),
    ],
)
def test_what_freeswitch_takes_for_true(value: str, true: bool) -> None:
    assert is_true(value) is true


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(?i)^sip_h_identity$", "keeps Identity from"),
        ("^sip_h_", "keeps Identity, y, Date, P-Asserted-Identity from"),
        ("/^sip_h_y$/", "keeps y from"),
        ("/^SIP_H_IDENTITY$/i", "keeps Identity from"),
        ("/^SIP_H_IDENTITY$/", None),
        ("/", None),
        ("(", "cannot be tried"),
        ("a" * 201, "cannot be tried"),
        ("((.*)*)*!", "cannot be tried"),
        (".*.*.*.*.*!", "cannot be tried"),
        ("[[a]", "cannot be tried"),
        ("$" + "{pattern}", "cannot be tried"),
        ("^sip_h_X-", None),
        ("^sip_h_Identity-Info$", None),
    ],
)
def test_headers_of_ours_are_excluded(switch: Switch, pattern: str, said: str | None) -> None:
    switch.action("set", f"exclude_outgoing_extra_header={pattern}")
    if said is None:
        assert switch.found() == {}
    else:
        assert said in switch.only(Check.HEADER_EXCLUDED).problem.message


@pytest.mark.parametrize("change", ["", '<param name="parse-all-invite-headers" value="false"/>'])
def test_a_profile_that_does_not_see_the_compact_form(switch: Switch, change: str) -> None:
    line = '<param name="parse-all-invite-headers" value="true"/>'
    switch.replace("sip_profiles/external.xml", line, change)
    assert "profile external" in switch.only(Check.COMPACT_FORM_UNSEEN).problem.path


# --- Gateways -----------------------------------------------------------------------------------

FROM = '<param name="caller-id-in-from" value="true"/>'


def test_a_gateway_whose_from_is_its_account(switch: Switch) -> None:
    switch.replace(CARRIER, FROM, "")
    assert "gateway carrier" in switch.only(Check.GATEWAY_FROM).problem.path


def test_a_parameter_that_freeswitch_does_not_read_is_named(switch: Switch) -> None:
    switch.replace(CARRIER, FROM, '<param name="cid-type" value="pid"/>')
    assert "its cid-type is not read" in switch.only(Check.GATEWAY_FROM).problem.message


def test_the_number_in_p_asserted_identity_is_enough(switch: Switch) -> None:
    switch.replace(CARRIER, FROM, "")
    switch.replace(CARRIER, HANDLER, HANDLER + '<variable name="sip_cid_type" value="pid" direction="outbound"/>')
    assert switch.found() == {}


def test_so_it_is_by_the_profile(switch: Switch) -> None:
    switch.replace(CARRIER, FROM, "")
    switch.replace("sip_profiles/external.xml", "<settings>", '<settings><param name="caller-id-type" value="pid"/>')
    assert switch.found() == {}


def test_a_gateway_that_does_not_sign_may_have_any_from(switch: Switch) -> None:
    switch.write("sip_profiles/external/other.xml", '<gateway name="pbx"><param name="proxy" value="pbx"/></gateway>')
    assert switch.found() == {}


# --- Our functions ------------------------------------------------------------------------------


def test_nothing_of_ours_is_called(switch: Switch) -> None:
    switch.replace(CARRIER, HANDLER, "")
    switch.replace("dialplan/public.xml", '<X-PRE-PROCESS cmd="include" data="../shaken.xml"/>', "")
    switch.only(Check.NOT_USED)


def test_a_configuration_of_variables_alone(switch: Switch) -> None:
    switch.write("freeswitch.xml", '<X-PRE-PROCESS cmd="set" data="execute_on_originate_x=python shaken::sign"/>')
    found = switch.found()
    assert set(found) >= {Check.MODULE_NOT_LOADED, Check.VERIFY_NOWHERE}
    assert Check.SIGN_NOWHERE not in found


def test_nothing_is_signed(switch: Switch) -> None:
    switch.replace(CARRIER, HANDLER, "")
    switch.only(Check.SIGN_NOWHERE)


def test_nothing_is_verified(switch: Switch) -> None:
    switch.replace("shaken.xml", 'data="shaken::verify"', 'data="shaken::pass_through"')
    switch.only(Check.VERIFY_NOWHERE)


def test_no_function_at_all(switch: Switch) -> None:
    switch.action("python", "shaken")
    assert "shaken::NAME" in switch.only(Check.UNKNOWN_FUNCTION).problem.message


def test_a_function_that_is_not_there(switch: Switch) -> None:
    switch.action("python", "shaken::verfy")
    assert "verify, pass_through, sign" in switch.only(Check.UNKNOWN_FUNCTION).problem.message


@pytest.mark.parametrize(("application", "data"), [("set", SIGN.replace("_shaken", "")), ("push", SIGN)])
def test_signing_on_the_callers_leg(switch: Switch, application: str, data: str) -> None:
    switch.replace(CARRIER, HANDLER, "")
    switch.action(application, data)
    found = switch.found()
    assert Check.SIGN_WRONG_LEG in found
    assert found[Check.SIGN_WRONG_LEG].problem.line == 4


def test_signing_on_a_gateways_inbound_leg(switch: Switch) -> None:
    switch.replace(CARRIER, 'direction="outbound"', 'direction="inbound"')
    switch.only(Check.SIGN_WRONG_LEG)


@pytest.mark.parametrize("application", ["export", "bridge_export"])
def test_signing_from_the_dialplan(switch: Switch, application: str) -> None:
    switch.replace(CARRIER, HANDLER, "")
    switch.action(application, f"nolocal:{SIGN}")
    assert switch.found() == {}


def test_signing_by_a_dial_string(switch: Switch) -> None:
    switch.replace(CARRIER, HANDLER, "")
    switch.action("bridge", "{execute_on_originate_shaken='python shaken::sign',a=b}sofia/gateway/carrier/$1")
    assert switch.found() == {}


def test_signing_as_an_action_of_the_dialplan(switch: Switch) -> None:
    switch.replace(CARRIER, HANDLER, "")
    switch.action("python", "shaken::sign")
    assert switch.found() == {}


def test_a_leg_may_be_named_to_it_twice(switch: Switch) -> None:
    switch.replace("vars.xml", "domain=example.net", SIGN)
    switch.action("export", "nolocal:execute_on_originate_other=python shaken::sign")
    assert switch.found() == {}


def test_over_the_event_socket_no_python_is_needed(switch: Switch) -> None:
    switch.write("shaken.xml", '<extension name="x"><condition><action application="socket" '
                 'data="127.0.0.1:8086/verify full"/></condition></extension>')  # fmt: skip
    switch.replace(CARRIER, "python shaken::sign", "socket 127.0.0.1:8086/sign full")
    switch.replace("autoload_configs/modules.conf.xml", "mod_python3", "mod_event_socket")
    switch.module.unlink()
    report = switch.check()
    assert list(map(str, report.findings)) == []
    assert report.over_socket

"""A small FreeSWITCH in a folder: the shipped files, loaded as the README says."""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shaken_plugin.setup.freeswitch import Layout, layout_of
from shaken_plugin.setup.machine import Machine
from shaken_plugin.switchcheck import Check, Finding, Report, check_freeswitch, read_environment

SHIPPED: Final = Path(__file__).parents[2] / "freeswitch"

_FREESWITCH: Final = """\
<?xml version="1.0"?>
<document type="freeswitch/xml">
  <X-PRE-PROCESS cmd="include" data="vars.xml"/>
  <section name="configuration">
    <X-PRE-PROCESS cmd="include" data="autoload_configs/*.xml"/>
  </section>
  <section name="dialplan">
    <X-PRE-PROCESS cmd="include" data="dialplan/*.xml"/>
  </section>
</document>
"""
_MODULES: Final = """\
<configuration name="modules.conf">
  <modules>
    <load module="mod_sofia"/>
    <load module="mod_python3"/>
  </modules>
</configuration>
"""
_SOFIA: Final = """\
<configuration name="sofia.conf">
  <profiles>
    <X-PRE-PROCESS cmd="include" data="../sip_profiles/*.xml"/>
  </profiles>
</configuration>
"""
_PROFILE: Final = """\
<profile name="external">
  <gateways>
    <X-PRE-PROCESS cmd="include" data="external/*.xml"/>
  </gateways>
  <settings>
    <param name="context" value="public"/>
    <param name="parse-all-invite-headers" value="true"/>
  </settings>
</profile>
"""
_PUBLIC: Final = """\
<include>
  <context name="public">
    <X-PRE-PROCESS cmd="include" data="../shaken.xml"/>
    <extension name="to_users">
      <condition field="destination_number" expression="^(\\d+)$">
        <action application="bridge" data="user/$1"/>
      </condition>
    </extension>
  </context>
</include>
"""
_UNIT: Final = """\
[Service]
Environment="USER=freeswitch"
ExecStart=/usr/bin/freeswitch -u ${USER} -ncwait
LimitSTACK=250000
"""
_SWIG: Final = "import _freeswitch\n"
"""What marks the switch's own module."""


def shared_library(*needed: str) -> bytes:
    """The least shared library that names others: 64 bits, little endian, sections alone."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    names = b"\0.dynamic\0.dynstr\0.shstrtab\0"
    entries = b""
    offset = 1
    for name in needed:
        entries += struct.pack("<QQ", 1, offset)  # DT_NEEDED
        offset += len(name) + 1
    entries += struct.pack("<QQ", 0, 0)
    bodies = [entries, strings, names]
    places = [64, 64 + len(entries), 64 + len(entries) + len(strings)]
    table = sum(map(len, bodies)) + 64
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 4, 3)
    sections = bytes(64)
    for label, kind, body, place, link, size in (
        (1, 6, entries, places[0], 2, 16),
        (10, 3, strings, places[1], 0, 0),
        (18, 3, names, places[2], 0, 0),
    ):
        sections += struct.pack("<IIQQQQIIQQ", label, kind, 0, 0, place, len(body), link, 0, 8, size)
    return header + b"".join(bodies) + sections


@dataclass(frozen=True, slots=True)
class Switch:
    """A machine with a FreeSWITCH on it, below a folder."""

    root: Path

    @property
    def machine(self) -> Machine:
        return Machine(self.root)

    @property
    def folder(self) -> Path:
        """Its configuration."""
        return self.root / "etc/freeswitch"

    @property
    def layout(self) -> Layout:
        found = layout_of(self.machine, self.folder)
        assert found is not None
        return found

    @property
    def module(self) -> Path:
        return self.root / "usr/lib/freeswitch/mod/mod_python3.so"

    def write(self, name: str, content: str) -> Path:
        """A file of the configuration, or with a leading slash of the machine."""
        path = self.root / name[1:] if name.startswith("/") else self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
        return path

    def replace(self, name: str, old: str, new: str) -> None:
        """Other text in a file that is there."""
        path = self.root / name[1:] if name.startswith("/") else self.folder / name
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")

    def environment(self, **variables: str) -> None:
        """What our drop-in sets, changed; an empty value takes a variable out."""
        usual = {
            "PYTHONPATH": "/opt/shaken/venv/lib/python3.11/site-packages:/opt/shaken/freeswitch/scripts",
            "SHAKEN_SETTINGS": "/etc/shaken/shaken.yaml",
        }
        lines = [f'Environment="{name}={value}"\n' for name, value in (usual | variables).items() if value]
        self.write("/etc/systemd/system/freeswitch.service.d/shaken.conf", "[Service]\n" + "".join(lines))

    def action(self, application: str, data: str = "") -> None:
        """One more extension with an action."""
        self.write(
            "dialplan/more.xml",
            f'<context name="default">\n<extension name="more">\n<condition>\n<action application="{application}" '
            f'data="{data}"/>\n</condition>\n</extension>\n</context>\n',
        )

    def check(self) -> Report:
        return check_freeswitch(self.machine, self.layout, read_environment(self.machine, None))

    def found(self) -> dict[Check, Finding]:
        """The findings by check; none may come twice here."""
        findings = self.check().findings
        assert len({finding.check for finding in findings}) == len(findings), list(map(str, findings))
        return {finding.check: finding for finding in findings}

    def only(self, check: Check) -> Finding:
        """The one finding there must be."""
        found = self.found()
        assert list(found) == [check], list(map(str, found.values()))
        return found[check]


def make_switch(root: Path) -> Switch:
    """A FreeSWITCH of the packages, with everything of ours as it should be."""
    switch = Switch(root)
    switch.write("freeswitch.xml", _FREESWITCH)
    switch.write("vars.xml", '<include>\n  <X-PRE-PROCESS cmd="set" data="domain=example.net"/>\n</include>\n')
    switch.write("autoload_configs/modules.conf.xml", _MODULES)
    switch.write("autoload_configs/sofia.conf.xml", _SOFIA)
    switch.write("sip_profiles/external.xml", _PROFILE)
    switch.write("dialplan/public.xml", _PUBLIC)
    shutil.copy(SHIPPED / "autoload_configs/python.conf.xml", switch.folder / "autoload_configs")
    shutil.copy(SHIPPED / "dialplan/shaken.xml", switch.folder)
    (switch.folder / "sip_profiles/external").mkdir()
    shutil.copy(SHIPPED / "sip_profiles/external/shaken-carrier.xml", switch.folder / "sip_profiles/external")
    switch.module.parent.mkdir(parents=True)
    switch.module.write_bytes(shared_library("libpython3.11.so.1.0", "libc.so.6"))
    switch.write("/usr/lib/python3/dist-packages/freeswitch.py", _SWIG)
    switch.write("/opt/shaken/venv/lib/python3.11/site-packages/shaken_plugin/__init__.py", "")
    switch.write("/opt/shaken/freeswitch/scripts/shaken.py", "from shaken_plugin.adapters import freeswitch\n")
    switch.write("/etc/shaken/shaken.yaml", "country: US\n").chmod(0o640)
    switch.write("/etc/passwd", "freeswitch:x:61234:61234::/:/bin/false\n")
    switch.write("/etc/group", f"freeswitch:x:61234:\nshaken:x:{(root / 'etc').stat().st_gid}:freeswitch\n")
    switch.write("/lib/systemd/system/freeswitch.service", _UNIT)
    switch.environment()
    return switch

"""Against a real FreeSWITCH: its own preprocessor, its sample configuration, its mod_python3."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shaken_plugin.setup.freeswitch import PREFIX_VARIABLE, Layout, layout_of
from shaken_plugin.setup.machine import Machine
from shaken_plugin.switchcheck import Check, check_freeswitch
from shaken_plugin.switchcheck.environment import Environment
from shaken_plugin.switchcheck.host import search_path
from shaken_plugin.switchcheck.preprocessor import Place, Text, preprocess
from shaken_plugin.switchcheck.tree import Element, parse

PREFIX = Path(os.environ.get(PREFIX_VARIABLE, "/nonexistent"))
SHIPPED = Path(__file__).parents[2] / "freeswitch"

pytestmark = pytest.mark.skipif(
    layout_of(Machine(), PREFIX) is None,
    reason=f"needs a FreeSWITCH with its sample configuration: set {PREFIX_VARIABLE} to its prefix",
)

_LOADS = '<configuration name="modules.conf">\n<modules>\n<load module="mod_commands"/>\n</modules>\n</configuration>\n'


ODD = """\
<include>
<configuration name="odd.conf">
<!-- <X-PRE-PROCESS cmd="set" data="odd_a=in a comment"/> -->
<x-pre-process CMD="set" DATA=" odd_b  =  1=2 "/>
<X-PRE-PROCESS   cmd = "set"   data = "odd_c=$${odd_b}$${odd_b}"/> <lost/>
  text before <X-PRE-PROCESS cmd="set" data="odd_d=d"/>
<X-NO-PRE-PROCESS cmd="set" data="odd_e=no"/>
<Z-PRE-PROCESS cmd="set" data="odd_e=no"/>
<X-PRE-PROCESS data="odd_f=order" cmd="set"/>
<X-PRE-PROCESS cmd="set" data="odd_g"/>
<!--#set "odd_h=h"-->
<!--#comment
<lost_too/>
-->
<kept a="$${odd_a}" b="[$${odd_b}]" c="$${odd_c}" d="$${odd_d}" e="$${odd_e}" f="$${odd_f}" g="$${odd_g}"/>
<kept_too h="$${odd_h}" none="[$${odd_none}]" amp="a&b&amp;c" single='x"y'/>
<lost/> <include>
<X-PRE-PROCESS cmd="include" data="odd/none-*.xml"/>
<X-PRE-PROCESS cmd="include" data="odd/b?.xml"/>
</configuration>
</include>
"""
"""What the preprocessor takes in its own way."""


def real() -> Layout:
    found = layout_of(Machine(), PREFIX)
    assert found is not None
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The real configuration in a folder, with the lines that setup prints added."""
    conf = tmp_path / "etc/freeswitch"
    shutil.copytree(real().configuration, conf)

    def change(name: str, old: str, new: str) -> None:
        text = (conf / name).read_text("utf-8")
        assert old in text, name
        (conf / name).write_text(text.replace(old, new, 1), "utf-8")

    shutil.copy(SHIPPED / "autoload_configs/python.conf.xml", conf / "autoload_configs")
    shutil.copy(SHIPPED / "sip_profiles/external/shaken-carrier.xml", conf / "sip_profiles/external")
    change("autoload_configs/modules.conf.xml", "<modules>", '<modules>\n<load module="mod_python3"/>')
    include = f'<X-PRE-PROCESS cmd="include" data="{SHIPPED}/dialplan/shaken.xml"/>'
    change("dialplan/public.xml", '<context name="public">', f'<context name="public">\n{include}')
    for profile in (conf / "sip_profiles").glob("*.xml"):
        change(
            f"sip_profiles/{profile.name}",
            "<settings>",
            '<settings>\n<param name="parse-all-invite-headers" value="true"/>',
        )
    return conf


def elements(root: Element) -> Iterator[tuple[str, dict[str, str]]]:
    waiting = list(reversed(root.children))
    while waiting:
        element = waiting.pop()
        yield element.tag, element.attributes
        waiting += reversed(element.children)


def start(conf: Path, folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    """A FreeSWITCH with a configuration whose modules listen nowhere; its files go into a folder."""
    program = real().configuration.parents[1] / "bin/freeswitch"
    options = []
    for name in ("log", "db", "run", "scripts", "temp", "cache", "storage", "recordings"):
        (folder / name).mkdir(exist_ok=True)
        options += [f"-{name}", str(folder / name)]
    modules = real().module_folder
    return subprocess.Popen(
        [program, "-nonat", "-nosql", "-nc", "-nf", "-conf", conf, "-mod", str(modules), *options],
        env={"PATH": os.environ["PATH"], **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def content_of(process: subprocess.Popen[bytes], made: Path) -> str:
    """What a file holds that FreeSWITCH puts in place as a whole; ends FreeSWITCH."""
    try:
        deadline = time.monotonic() + 60
        while not made.exists():
            assert process.poll() is None, "FreeSWITCH ended"
            assert time.monotonic() < deadline, f"FreeSWITCH made no {made.name}"
            time.sleep(0.1)
        return made.read_text("utf-8")
    finally:
        process.kill()
        process.wait()


def as_freeswitch_reads_it(conf: Path, folder: Path) -> Text:
    """The text that FreeSWITCH makes of a configuration, which it leaves in its folder of logs."""
    made = folder / "log/freeswitch.xml.fsxml"
    lines = content_of(start(conf, folder), made).split("\n")
    return Text(lines, [Place(made.name, number) for number in range(1, len(lines) + 1)])


def test_our_reading_is_that_of_freeswitch(copy: Path, tmp_path: Path) -> None:
    """Every element, attribute and value of the sample configuration, in order."""
    # mod_commands alone: nothing listens.
    (copy / "autoload_configs/modules.conf.xml").write_text(_LOADS)
    texts = [path.read_text("utf-8", "replace") for path in copy.rglob("*.xml")]
    names = sorted({name for text in texts for name in re.findall(r"\$\$\{(\w+)\}", text)})
    (copy / "autoload_configs/odd.conf.xml").write_text(ODD)
    (copy / "autoload_configs/odd").mkdir()
    for name in ("b2", "b1", "b10"):
        (copy / f"autoload_configs/odd/{name}.xml").write_text(f'<from file="{name}"/><and h="$${{odd_h}}"/>')
    main = copy / "freeswitch.xml"
    # What FreeSWITCH itself sets (addresses, folders) is read back from what it makes of these.
    asked = "".join(f'<builtin name="{name}" value="$${{{name}}}"/>\n' for name in names)
    lines = main.read_text("utf-8").replace(
        '<document type="freeswitch/xml">', f'<document type="freeswitch/xml">\n{asked}'
    )
    main.write_text(lines)
    theirs = parse(as_freeswitch_reads_it(copy, tmp_path))
    given = {element.get("name"): element.get("value") for element in theirs.all("builtin")}
    text = preprocess(main, given)
    ours = parse(text)
    assert text.findings == []
    assert len(given) > 20
    count = 0
    for mine, other in zip(elements(ours), elements(theirs), strict=True):
        assert mine == other
        count += 1
    assert count > 3000
    assert len([*ours.all("kept", "kept_too", "from")]) == 4


def test_the_sample_configuration_lacks_what_we_need() -> None:
    report = check_freeswitch(Machine(), real(), Environment("a test"))
    checks = {finding.check for finding in report.findings}
    assert checks >= {Check.MODULE_NOT_LOADED, Check.WARM_UP_MISSING, Check.NOT_USED, Check.COMPACT_FORM_UNSEEN}
    assert not checks & {Check.XML_MALFORMED, Check.NATIVE_SIGNING, Check.HEADERS_DROPPED, Check.MODULE_UNREADABLE}
    assert report.python is not None


def test_with_the_printed_lines_it_is_clean(copy: Path, tmp_path: Path) -> None:
    version = check_freeswitch(Machine(), real(), Environment("a test")).python
    packages = tmp_path / f"lib/python{version}/site-packages"
    (packages / "shaken_plugin").mkdir(parents=True)
    (packages / "shaken_plugin/__init__.py").touch()
    (packages / "shaken.py").write_text("import shaken_plugin\n")
    settings = tmp_path / "shaken.yaml"
    settings.touch()
    environment = Environment("a test", {"PYTHONPATH": str(packages), "SHAKEN_SETTINGS": str(settings)})
    layout = Layout(copy, real().modules, real().scripts)
    report = check_freeswitch(Machine(), layout, environment)
    assert list(map(str, report.findings)) == []


# --- mod_python3 ----------------------------------------------------------------------------------

_TELLS = """\
import json, os, sys
import freeswitch

def runtime(args):
    with open(os.environ["TOLD"] + ".new", "w") as file:
        json.dump({"path": sys.path, "module": freeswitch.__file__}, file)
    os.rename(file.name, os.environ["TOLD"])
"""


@pytest.fixture
def python(copy: Path) -> Path:
    """A configuration that loads mod_python3 and starts our warm-up, and nothing that listens."""
    (copy / "autoload_configs/modules.conf.xml").write_text(_LOADS.replace("mod_commands", "mod_python3"))
    return copy


def told(python: Path, folder: Path, path: str) -> Any:
    (folder / "ours").mkdir()
    (folder / "ours/shaken.py").write_text(_TELLS)
    process = start(python, folder, PYTHONPATH=path, TOLD=str(folder / "told.json"))
    return json.loads(content_of(process, folder / "told.json"))


def test_the_search_path_is_that_of_mod_python3(python: Path, tmp_path: Path) -> None:
    """And the warm-up that ships runs the function `runtime` of our script."""
    path = f"{tmp_path}/first:{tmp_path}/ours"
    answer = told(python, tmp_path, path)
    layout = Layout(python, real().modules, (tmp_path / "scripts",))
    version = check_freeswitch(Machine(), real(), Environment("a test")).python
    ours = [*map(str, search_path(Machine(), Environment("a test", {"PYTHONPATH": path}), layout, version))]
    assert ours[:3] == [f"{tmp_path}/first", f"{tmp_path}/ours", f"{tmp_path}/scripts"]
    assert [entry for entry in answer["path"] if entry in ours] == [
        entry for entry in ours if Path(entry).is_dir() or entry in ours[:3]
    ]
    assert "_freeswitch" in Path(answer["module"]).read_text("utf-8")


@pytest.mark.parametrize("name", ["freeswitch/__init__.py", "freeswitch.py"])
def test_what_is_told_to_hide_the_switchs_module_hides_it(python: Path, tmp_path: Path, name: str) -> None:
    hiding = tmp_path / "first" / name
    hiding.parent.mkdir(parents=True)
    hiding.touch()
    path = f"{tmp_path}/first:{tmp_path}/ours"
    assert told(python, tmp_path, path)["module"] == str(hiding)
    layout = Layout(python, real().modules, (tmp_path / "scripts",))
    report = check_freeswitch(Machine(), layout, Environment("a test", {"PYTHONPATH": path}))
    (finding,) = [found for found in report.findings if found.check is Check.SWITCH_MODULE_SHADOWED]
    assert finding.problem.file == str(hiding)


def test_pythonhome_ends_freeswitch(python: Path, tmp_path: Path) -> None:
    process = start(python, tmp_path, PYTHONHOME=str(tmp_path))
    try:
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()

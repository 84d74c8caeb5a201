"""Reading a configuration as FreeSWITCH does, and saying no to one that is broken or hostile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shaken_plugin.switchcheck import Check, preprocessor
from shaken_plugin.switchcheck import tree as trees
from shaken_plugin.switchcheck.preprocessor import Place, Text, preprocess
from shaken_plugin.switchcheck.tree import Element, parse
from tests.switchcheck.switches import Switch


def read(folder: Path, content: str) -> tuple[Element, Text]:
    file = folder / "freeswitch.xml"
    file.write_text(content, "utf-8")
    text = preprocess(file, {"conf_dir": str(folder)})
    return parse(text), text


def values(root: Element) -> list[str]:
    return [element.get("value") for element in root.all("param")]


# --- The preprocessor -----------------------------------------------------------------------------


def test_variables_are_put_in_where_they_are_set_before(tmp_path: Path) -> None:
    root, text = read(
        tmp_path,
        '<a>\n<param value="[$${x}]"/>\n'
        '<X-PRE-PROCESS cmd="set" data="x = 1=2"/>\n<param value="[$${x}]$${conf_dir}"/>\n'
        '<x-pre-process cmd="set" data="nonsense"/><param value="lost"/>\n'
        '<!--#set "y=3"-->\n<param value="$${y}"/>\n</a>',
    )
    assert values(root) == ["[]", f"[1=2]{tmp_path}", "3"]
    assert text.settings["x"].place == Place(str(tmp_path / "freeswitch.xml"), 3)
    assert text.findings == []
    assert text.whole


def test_includes_are_read_in_order_and_lines_know_their_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("2.xml", "1.xml", "x.txt"):
        (tmp_path / "d" / name).write_text(f'<include>\n  <param value="{name}"/>\n</include>\n')
    root, text = read(tmp_path, '<a>\n<X-PRE-PROCESS cmd="include" data="d/*.xml"/>\n<param value="last"/>\n</a>')
    assert values(root) == ["1.xml", "2.xml", "last"]
    assert [(element.place.file, element.place.line, element.column) for element in root.all("param")] == [
        (str(tmp_path / "d/1.xml"), 2, 3),
        (str(tmp_path / "d/2.xml"), 2, 3),
        (str(tmp_path / "freeswitch.xml"), 3, 1),
    ]
    assert text.findings == []


def test_a_command_in_a_comment_is_one_too(tmp_path: Path) -> None:
    (tmp_path / "more.xml").write_text('--><param value="in"/><!--\n')
    root, _ = read(tmp_path, '<a>\n<!--\n  <X-PRE-PROCESS cmd="include" data="more.xml"/>\n-->\n</a>')
    assert values(root) == ["in"]


def test_other_elements_of_like_names_are_none(tmp_path: Path) -> None:
    root, text = read(
        tmp_path,
        '<a>\n<X-NO-PRE-PROCESS cmd="set" data="x=1"/>\n<!-- X-PRE-PROCESS cmd="set" data="x=1" -->\n'
        '<X-PRE-PROCESS data="x=1"/>\n<X-PRE-PROCESS cmd="set"/>\n<param value="$${x}"/>\n</a>',
    )
    assert values(root) == [""]
    assert text.settings == {}


def test_a_comment_of_several_lines(tmp_path: Path) -> None:
    root, text = read(tmp_path, '<a>\n<!--#comment\n<param value="no"/>\n--><param value="yes"/>\n</a>')
    assert values(root) == ["yes"]
    assert text.findings == []


def test_nothing_is_executed(tmp_path: Path) -> None:
    _, text = read(
        tmp_path,
        f'<a>\n<X-PRE-PROCESS cmd="exec" data="touch {tmp_path}/x"/>\n'
        f'<X-PRE-PROCESS cmd="exec-set" data="x=touch {tmp_path}/x"/>\n</a>',
    )
    assert [finding.check for finding in text.findings] == [Check.XML_NOT_FOLLOWED]
    assert text.whole
    assert not (tmp_path / "x").exists()


# --- Bounds -------------------------------------------------------------------------------------


def only(text: Text) -> tuple[Check, int]:
    (finding,) = text.findings
    assert not text.whole
    return finding.check, finding.problem.line


def test_a_cycle_is_named_where_it_closes(tmp_path: Path) -> None:
    (tmp_path / "b.xml").write_text('\n<X-PRE-PROCESS cmd="include" data="freeswitch.xml"/>\n')
    _, text = read(tmp_path, '<a>\n<X-PRE-PROCESS cmd="include" data="b.xml"/>\n</a>')
    assert only(text) == (Check.XML_CYCLE, 2)
    assert text.findings[0].problem.file == str(tmp_path / "b.xml")


def test_a_cycle_through_a_link_is_one_too(tmp_path: Path) -> None:
    (tmp_path / "d").symlink_to(".")
    _, text = read(tmp_path, '<a>\n<X-PRE-PROCESS cmd="include" data="d/freeswitch.xml"/>\n</a>')
    assert only(text) == (Check.XML_CYCLE, 2)


def test_a_file_that_is_included_twice_is_no_cycle(tmp_path: Path) -> None:
    (tmp_path / "b.xml").write_text('<param value="b"/>')
    root, text = read(tmp_path, "<a>\n" + '<X-PRE-PROCESS cmd="include" data="b.xml"/>\n' * 2 + "</a>")
    assert values(root) == ["b", "b"]
    assert text.findings == []


def test_files_that_include_each_other_ever_deeper(tmp_path: Path) -> None:
    for number in range(preprocessor.MAX_DEPTH + 2):
        (tmp_path / f"{number}.xml").write_text(f'<X-PRE-PROCESS cmd="include" data="{number + 1}.xml"/>\n')
    _, text = read(tmp_path, '<X-PRE-PROCESS cmd="include" data="0.xml"/>')
    assert text.findings[0].check is Check.XML_TOO_LARGE


def test_files_that_multiply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessor, "MAX_FILES", 50)
    for number in range(20):
        (tmp_path / f"{number}.xml").write_text(f'<X-PRE-PROCESS cmd="include" data="{number + 1}.xml"/>\n' * 2)
    _, text = read(tmp_path, '<a>\n<X-PRE-PROCESS cmd="include" data="0.xml"/>\n</a>')
    assert text.findings[0].check is Check.XML_TOO_LARGE


def test_variables_that_double(tmp_path: Path) -> None:
    lines = ['<X-PRE-PROCESS cmd="set" data="v0=xxxxxxxxxx"/>']
    lines += [f'<X-PRE-PROCESS cmd="set" data="v{n + 1}={f"$${{v{n}}}" * 2}"/>' for n in range(60)]
    _, text = read(tmp_path, "<a>\n" + "\n".join(lines) + "\n</a>")
    assert text.findings[0].check is Check.XML_TOO_LARGE


def test_much_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessor, "MAX_TEXT", 1000)
    (tmp_path / "b.xml").write_text("x" * 2000)
    _, text = read(tmp_path, '<a>\n<X-PRE-PROCESS cmd="include" data="b.xml"/>\n</a>')
    assert only(text) == (Check.XML_TOO_LARGE, 2)
    (tmp_path / "b.xml").write_text("x" * 600 + "\n")
    _, text = read(tmp_path, "<a>\n" + '<X-PRE-PROCESS cmd="include" data="b.xml"/>\n' * 2 + "</a>")
    assert (Check.XML_TOO_LARGE, 1) in [(finding.check, finding.problem.line) for finding in text.findings]


def test_a_file_that_is_no_plain_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.xml")
    _, text = read(tmp_path, '<a>\n<X-PRE-PROCESS cmd="include" data="b.xml"/>\n</a>')
    assert only(text) == (Check.XML_UNREADABLE, 2)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "b.xml").symlink_to("c.xml")
    _, text = read(tmp_path, '<a>\n<X-PRE-PROCESS cmd="include" data="*.xml"/>\n</a>')
    assert Check.XML_UNREADABLE in {finding.check for finding in text.findings}


def test_text_that_is_not_kept_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of variables and lines of commands use memory and time as well."""
    monkeypatch.setattr(preprocessor, "MAX_TEXT", 1_000_000)
    value = "x" * 1000
    lines = [f'<X-PRE-PROCESS cmd="set" data="a={value}"/>', f'<X-PRE-PROCESS cmd="set" data="b={"$${a}" * 900}"/>']
    lines += [f'<X-PRE-PROCESS cmd="set" data="c{n}=$${{b}}"/>' for n in range(3)]
    _, text = read(tmp_path, "<a>\n" + "\n".join(lines) + "\n</a>")
    assert only(text) == (Check.XML_TOO_LARGE, 4)
    (tmp_path / "b.xml").write_text("<include>\n" * 20_000)
    _, text = read(tmp_path, "<a>\n" + '<X-PRE-PROCESS cmd="include" data="b.xml"/>\n' * 6 + "</a>")
    assert text.findings[0].check is Check.XML_TOO_LARGE


def test_links_that_lead_to_each_other(tmp_path: Path) -> None:
    (tmp_path / "b.xml").symlink_to("c.xml")
    (tmp_path / "c.xml").symlink_to("b.xml")
    _, text = read(tmp_path, '<a>\n<X-PRE-PROCESS cmd="include" data="[bc].xml"/>\n</a>')
    assert {finding.check for finding in text.findings} == {Check.XML_UNREADABLE}


@pytest.mark.parametrize("pattern", ["/*/*/*", "*/*/?/x", "[a]/*/*.xml"])
def test_patterns_that_search_the_whole_disk_are_refused(tmp_path: Path, pattern: str) -> None:
    _, text = read(tmp_path, f'<a>\n<X-PRE-PROCESS cmd="include" data="{pattern}"/>\n</a>')
    assert text.findings[0].check is Check.XML_TOO_LARGE
    assert text.findings[0].problem.line == 2


def test_a_name_with_a_nul_is_no_file(tmp_path: Path) -> None:
    _, text = read(tmp_path, '<a>\n<X-PRE-PROCESS cmd="include" data="b\0*/x*"/>\n</a>')
    assert [finding.check for finding in text.findings] == [Check.XML_UNREADABLE]


# --- XML ------------------------------------------------------------------------------------------


def test_what_is_not_xml_is_named_in_its_own_file(switch: Switch) -> None:
    switch.write("dialplan/aa.xml", '<context name="x">\n<extension>\n</context>\n')
    finding = switch.only(Check.XML_MALFORMED)
    assert (finding.problem.file, finding.problem.line) == (f"{switch.folder}/dialplan/aa.xml", 3)


def test_what_freeswitch_takes_is_taken(tmp_path: Path) -> None:
    root, text = read(tmp_path, '<a>\n<param value="a=1&b=2&amp;c&nbsp;"/>\n</a>\nand more < of it')
    assert values(root) == ["a=1&b=2&c&nbsp;"]
    assert text.findings == []


def test_an_entity_bomb_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [\n<!ENTITY a "x">\n' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">\n' for n in range(20)
    )
    root, text = read(tmp_path, f'{bomb}]>\n<a>\n<param value="&u;"/>\n</a>')
    assert only(text)[0] is Check.XML_DOCTYPE
    assert values(root) == []


def test_an_external_entity_is_refused(tmp_path: Path) -> None:
    _, text = read(tmp_path, '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd">\n<a/>')
    assert only(text)[0] is Check.XML_DOCTYPE


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    _, text = read(tmp_path, "<a>\n" * (trees.MAX_NESTING + 1))
    assert only(text) == (Check.XML_TOO_LARGE, trees.MAX_NESTING + 1)


def test_an_empty_file(tmp_path: Path) -> None:
    root, text = read(tmp_path, "")
    assert root.children == []
    assert only(text)[0] is Check.XML_MALFORMED


def test_nothing_at_all(tmp_path: Path) -> None:
    root, text = read(tmp_path, "<?xml?>")
    assert root.children == []
    assert text.findings == []


_PIECES = st.sampled_from([
    "<a>", "</a>", "<a b='", '"', "<X-PRE-PROCESS ", 'cmd="set" ', 'data="x=$${x}$${x}y"', "/>", "<!--#", "-->", "<!--",
    "<![CDATA[", "]]>", "<!DOCTYPE a [", "&#0;", "&", "\x00", "\ud7ff", "\n", "$${", "}", "<include>", "<?x", "=",
    '<X-PRE-PROCESS cmd="include" data="*"/>', '<X-PRE-PROCESS cmd="include" data="[" />', "\x1b", "é", "\r",
])  # fmt: skip


@given(st.lists(_PIECES, max_size=30).map("".join))
def test_whatever_stands_in_it_is_a_tree_or_a_named_finding(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """No text raises an exception or unfolds, and every finding has a file and a line."""
    folder = tmp_path_factory.mktemp("hostile")
    root, read_text = read(folder, text)
    assert len(list(root.all("a"))) <= len(text)
    for finding in read_text.findings:
        assert finding.problem.file.startswith(str(folder))
        assert finding.problem.line >= 0

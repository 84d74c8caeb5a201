"""mod_python3: whether it is loaded, is there, and which Python it brings."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from shaken_plugin.switchcheck.findings import Check, Finding, at_whole
from shaken_plugin.switchcheck.preprocessor import Text
from shaken_plugin.switchcheck.tree import Element

_LISTS: Final = ("modules.conf", "pre_load_modules.conf", "post_load_modules.conf")
_LIBRARY: Final = re.compile(r"libpython(\d+\.\d+)[a-z]*\.so")
_LARGEST: Final = 256 * 1024 * 1024
"""Bytes; the module has about 2 MB, 20 with debug symbols."""


def _configuration(root: Element, name: str) -> Element | None:
    return next((found for found in root.all("configuration") if found.get("name") == name), None)


def check_loading(root: Element, text: Text, directory: Path) -> Iterator[Finding]:
    """Whether the configuration loads mod_python3, and warms our script up."""
    loads: dict[str, Element] = {}
    for name in _LISTS:
        configuration = _configuration(root, name)
        if configuration is not None:
            loads |= {load.get("module").removesuffix(".so"): load for load in configuration.all("load")}
    modules = _configuration(root, "modules.conf")
    where = modules.place.file if modules else str(directory / "autoload_configs/modules.conf.xml")
    if "mod_python" in loads:
        yield loads["mod_python"].finding(
            Check.MODULE_PYTHON2, 'mod_python is for Python 2; write <load module="mod_python3"/> in its place'
        )
    if not text.whole:
        return
    if "mod_python3" not in loads:
        yield at_whole(Check.MODULE_NOT_LOADED, where, 'mod_python3 is not loaded; add <load module="mod_python3"/>')
    yield from _warm_up(root, directory)


def _warm_up(root: Element, directory: Path) -> Iterator[Finding]:
    configuration = _configuration(root, "python.conf")
    if configuration is None:
        yield at_whole(
            Check.PYTHON_CONF_MISSING,
            directory / "autoload_configs/python.conf.xml",
            "there is none; copy the one that ships, or the first call of each start is slow",
        )
        return
    scripts = [param.get("value") for param in configuration.all("param") if param.get("name") == "startup-script"]
    if not any(value.split(maxsplit=1)[:1] == ["shaken"] for value in scripts):
        yield configuration.finding(
            Check.WARM_UP_MISSING,
            'our script is not warmed up; add to its settings: <param name="startup-script" value="shaken"/>',
        )


def check_module(folder: Path | None, looked: tuple[Path, ...]) -> tuple[str | None, list[Finding]]:
    """The version of Python that mod_python3 links, None where that cannot be told.

    Args:
        folder: where FreeSWITCH's modules are, None where it was not found.
        looked: where it was looked for.
    """
    if folder is None:
        places = ", ".join(map(str, looked))
        return None, [
            at_whole(Check.MODULES_UNKNOWN, "mod_python3.so", f"no folder of modules in {places}; name it: --modules")
        ]
    module = folder / "mod_python3.so"
    if not module.is_file():
        return None, [
            at_whole(
                Check.MODULE_MISSING,
                module,
                "there is none; install freeswitch-mod-python3, or build languages/mod_python3 (modules.conf of the "
                "source)",
            )
        ]
    try:
        version = linked_python(module)
    except (OSError, ValueError) as exc:
        return None, [at_whole(Check.MODULE_UNREADABLE, module, f"{exc}; install it anew")]
    if version is None:
        return None, [at_whole(Check.MODULE_UNREADABLE, module, "it links no libpython; build it anew")]
    return version, []


def linked_python(module: Path) -> str | None:
    """The version, for instance "3.11", of the libpython that a shared library names as needed.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no shared library.
    """
    with module.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError("larger than any module")
    try:
        section = ELFFile(io.BytesIO(content)).get_section_by_name(".dynamic")
        if not isinstance(section, DynamicSection):
            return None
        names = [tag.needed for tag in section.iter_tags("DT_NEEDED")]  # type: ignore[attr-defined]  # made at run time
    except Exception as exc:  # whatever the reader meets in a damaged file
        raise ValueError(f"not a shared library: {type(exc).__name__}") from exc
    return next((match[1] for name in names if (match := _LIBRARY.match(str(name)))), None)

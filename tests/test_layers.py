"""The layers of the package: imports point upwards in the table of its docstring, and only there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

import shaken_plugin

ROOT = Path(shaken_plugin.__file__).parent
PACKAGE = "shaken_plugin"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "patience", "processid"}),
    frozenset({"bounded", "jsontext", "sqlitefile"}),
    frozenset({"core"}),
    frozenset({"ports"}),
    frozenset({"authentication"}),
    frozenset({"verification"}),
    frozenset({"stores", "certs", "records", "telemetry"}),
    frozenset({"conduct"}),
    frozenset({"lint"}),
    frozenset({"fetch"}),
    frozenset({"config"}),
    frozenset({"runtime"}),
    frozenset({"exchange"}),
    frozenset({"switch", "agent"}),
    frozenset({"adapters", "cli", "lab", "probe", "setup", "switchcheck"}),
)
"""From the top: each layer imports from those before it, and from itself within one package."""

BESIDE = {
    ("cli", "adapters"), ("cli", "lab"), ("cli", "probe"), ("cli", "setup"), ("cli", "switchcheck"),
    ("probe", "lab"), ("setup", "lab"), ("switchcheck", "setup"),
}  # fmt: skip
"""Imports within the last layer that are meant."""

THIRD_PARTY = {
    "core": {"cryptography", "_sha2", "_sha256"},  # Python's own SHA-256, by version
    "certs": {"cryptography"},
    "fetch": {"aiodns", "hishel", "httpcore"},
    "switch": {"cryptography"},
    "agent": {"cryptography", "httpx", "prometheus_client"},
    "config": {"cryptography", "pydantic", "pydantic_core", "phonenumbers", "yaml"},
    "records": {"sqlalchemy"},
    "runtime": {"pydantic"},
    "stores": {"pydantic", "redis"},
    "exchange": {"yaml"},
    "lint": {"cryptography"},
    "cli": {"click", "cryptography", "httpx", "pydantic", "rich", "trustme"},
    "switchcheck": {"defusedxml", "elftools"},
    "lab": {"cryptography", "httpcore", "redis", "rich", "trustme", "yaml"},
    "probe": {"dpkt", "jinja2"},
}
"""Libraries that a layer may use; one that is not named uses none."""

CORE_STDLIB = {
    "__future__", "_sha2", "_sha256",
    "base64", "binascii", "bisect", "calendar", "collections", "dataclasses", "datetime", "enum",
    "functools", "hashlib", "heapq", "ipaddress", "json", "math", "re", "typing",
}  # fmt: skip
"""All that the core needs of the standard library: nothing that reads, waits, draws or writes."""

PURE = {"errors", "core", "ports", "authentication", "verification", "lint"}
IMPURE_MODULES = {
    "asyncio", "http", "io", "logging", "os", "pathlib", "random", "secrets", "select", "signal", "socket", "sqlite3",
    "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "eval", "exec", "compile", "__import__", "globals"}
IMPURE_ATTRIBUTES = {"now", "utcnow", "today", "uuid1", "uuid4", "urandom", "getenv", "environ", "import_module"}

NETWORK = {
    "asyncio",
    "http",
    "requests",
    "httpx",
    "httpcore",
    "aiodns",
    "hishel",
    "redis",
    "select",
    "selectors",
    "socket",
    "ssl",
    "subprocess",
}
"""What a SIP process must not have: it downloads nothing and starts nothing."""

NOT_IN_A_SWITCH = {
    "aiodns", "anyio", "click", "defusedxml", "dpkt", "elftools", "h11", "hishel", "httpcore", "httpx",
    "jinja2", "msgpack", "psycopg", "redis", "requests", "rich", "sqlalchemy", "trustme",
}  # fmt: skip
"""Libraries of the agent, the command and the lab."""


@dataclass(frozen=True)
class Module:
    """One source file and what it imports."""

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        """Read when a test asks: each process that runs tests has all modules, and few of their tests."""
        return ast.parse(self.path.read_text("utf-8"), str(self.path))

    @cached_property
    def imports(self) -> frozenset[str]:
        """Everything imported, anywhere in it."""
        return frozenset(_imports(self.tree))

    @property
    def layer(self) -> str:
        """The first part of its name below the package; empty for the package itself."""
        return self.name.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]


def _imports(tree: ast.Module) -> Iterator[str]:
    """Everything imported, anywhere in a file; ``from a import b`` is ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _modules() -> dict[str, Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        if "share" in parts:
            continue  # scripts for the switches, no part of the package
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = Module(name, path)
    return found


MODULES = _modules()
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

each_module = pytest.mark.parametrize("module", MODULES.values(), ids=list(MODULES))


def _layer_of(imported: str) -> str | None:
    """The layer that an import leads to; None for another library or the package's own constants."""
    head, _, rest = imported.partition(".")
    name = rest.partition(".")[0]
    return name if head == PACKAGE and name and not name.startswith("__") else None


def test_the_walk_finds_the_package() -> None:
    assert len(MODULES) > 40
    assert {"shaken_plugin", "shaken_plugin.core.passport", "shaken_plugin.cli"} <= MODULES.keys()


@each_module
def test_every_module_is_in_a_layer(module: Module) -> None:
    assert module.layer in RANK or module.name == PACKAGE


def test_every_layer_has_a_module() -> None:
    assert {module.layer for module in MODULES.values()} - {""} == set(RANK)


def test_the_table_is_that_of_the_docstring() -> None:
    assert shaken_plugin.__doc__ is not None
    table = shaken_plugin.__doc__.partition("in this list:")[2].strip()
    rows = [re.match(r"(?:``\w+``(?:, )?)+", line) for line in table.splitlines()]
    documented = [set(re.findall(r"\w+", row.group())) for row in rows if row]
    assert documented == [set(layer) for layer in LAYERS]


@each_module
def test_imports_point_upwards_only(module: Module) -> None:
    for imported in module.imports:
        layer = _layer_of(imported)
        if layer is None or layer == module.layer or (module.layer, layer) in BESIDE:
            continue
        assert module.layer, f"the package itself imports {imported}"
        assert layer in RANK, f"{module.name} imports {imported}, which is in no layer"
        assert RANK[layer] < RANK[module.layer], f"{module.name} imports {imported} from below or beside"


@each_module
def test_a_layer_uses_no_library_that_is_not_meant_for_it(module: Module) -> None:
    libraries = {imported.partition(".")[0] for imported in module.imports} - sys.stdlib_module_names - {PACKAGE}
    assert libraries <= THIRD_PARTY.get(module.layer, set())


@pytest.mark.parametrize("module", [module for module in MODULES.values() if module.layer == "core"])
def test_the_core_imports_errors_itself_and_little_else(module: Module) -> None:
    ours = {_layer_of(imported) for imported in module.imports} - {None}
    assert ours <= {"core", "errors"}
    standard = {imported.partition(".")[0] for imported in module.imports} & sys.stdlib_module_names
    assert standard <= CORE_STDLIB


@pytest.mark.parametrize("module", [module for module in MODULES.values() if module.layer in PURE])
def test_pure_layers_read_no_clock_draw_nothing_and_write_nothing(module: Module) -> None:
    assert not {imported.partition(".")[0] for imported in module.imports} & IMPURE_MODULES
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            # `now` is also the name of what time is passed in as; only a call asks the clock.
            called = node.attr not in {"now", "today"} or _is_class(node.value)
            assert not (called and node.attr in IMPURE_ATTRIBUTES), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fromtimestamp":
            assert len(node.args) + len(node.keywords) == 2, f"line {node.lineno}: the machine's own time zone"


def _is_class(value: ast.expr) -> bool:
    """Whether an expression names ``datetime``, ``date`` or the like, as in ``datetime.now``."""
    name = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
    return name in {"datetime", "date"}


# --- What a switch process loads ----------------------------------------------------------------


def _loaded_by(*names: str, inline_too: bool = False) -> set[str]:
    """The modules that those parts of the package (by name) import, directly or not, but what `INLINE` does."""
    roots = tuple(f"{PACKAGE}.{name}" for name in names)
    waiting = [name for name in MODULES if f"{name}.".startswith(tuple(f"{root}." for root in roots))]
    loaded: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in loaded:
            continue
        loaded.add(name)
        for imported in MODULES[name].imports if inline_too or name != INLINE else ():
            # "from a.b import c": a, a.b, and a.b.c where it is a module.
            parts = imported.split(".")
            waiting += [one for end in range(1, len(parts) + 1) if (one := ".".join(parts[:end])) in MODULES]
    return loaded


CLIENT = "shaken_plugin.certs.agent_client"
"""Asks the agent of the same host; with a connection for each question."""

LINE = "shaken_plugin.stores.agent_line"
"""Likewise, by a connection that stays."""

ASKS_FOR_TCP = "shaken_plugin.adapters.freeswitch.size"
"""Connects to a peer that an INVITE is about to be sent to, and says nothing."""

INLINE = "shaken_plugin.runtime.inline"
"""Loads the fetcher, where there is no agent, into a process whose calls are threads."""

ESL = "shaken_plugin.adapters.freeswitch.esl"
"""The functions for FreeSWITCH that are beside the switch: loaded by the agent alone."""


# Looked for when a test asks: each process that runs tests would read the whole package, and one runs these.


@cache
def _in_a_switch() -> set[str]:
    return _loaded_by("adapters.kamailio", "adapters.freeswitch.mod_python", "switch")


@cache
def _in_kamailio() -> set[str]:
    return _loaded_by("adapters.kamailio", "switch", inline_too=True)


def test_a_switch_process_loads_the_services() -> None:
    assert {"shaken_plugin.runtime", "shaken_plugin.stores.sqlite", "shaken_plugin.core.jws"} <= _in_a_switch()


def test_a_switch_process_loads_nothing_of_the_command_line_or_the_network() -> None:
    for name in sorted(_in_a_switch()):
        module = MODULES[name]
        beyond = {"exchange", "fetch", "cli", "lab", "probe", "setup", "switchcheck", "agent"}
        assert module.layer not in beyond, name
        libraries = {imported.partition(".")[0] for imported in module.imports}
        allowed = {"socket"} if name in {CLIENT, LINE, ASKS_FOR_TCP} else set()
        assert not libraries & ({"click", "rich"} | NETWORK) - allowed, name
        assert "urllib.request" not in module.imports, name


def test_what_asks_a_peer_for_tcp_only_connects() -> None:
    nodes = [node for node in ast.walk(MODULES[ASKS_FOR_TCP].tree) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "socket"}
    assert used == {"create_connection"}


@pytest.mark.parametrize("name", [CLIENT, LINE])
def test_the_clients_of_the_agent_open_unix_sockets_alone(name: str) -> None:
    nodes = [node for node in ast.walk(MODULES[name].tree) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "socket"}
    assert "AF_UNIX" in used
    assert used <= {"AF_UNIX", "SOCK_STREAM", "SOCK_CLOEXEC", "MSG_DONTWAIT", "MSG_NOSIGNAL", "socket"} | (
        {"SOL_SOCKET", "SO_RCVTIMEO"} if name == LINE else set()
    )


def test_kamailio_loads_nothing_that_could_download() -> None:
    assert INLINE not in _in_kamailio()
    assert [name for name in sorted(_in_kamailio()) if MODULES[name].layer == "fetch"] == []


def test_only_the_adapter_of_a_switch_whose_calls_are_threads_may_download() -> None:
    def loads(module: Module) -> bool:
        return any(f"{imported}.".startswith(f"{INLINE}.") for imported in module.imports)

    assert {name for name, module in MODULES.items() if loads(module)} == {
        f"{PACKAGE}.adapters.freeswitch.mod_python",
        f"{PACKAGE}.cli.agent",  # in whose process such a switch may have its calls served
    }


def test_what_serves_calls_is_loaded_by_the_agents_command_where_it_is_wanted() -> None:
    def loads(imports: Iterable[str]) -> bool:
        return any(f"{imported}.".startswith(f"{ESL}.") for imported in imports)

    assert {name for name, module in MODULES.items() if not name.startswith(ESL) and loads(module.imports)} == {
        f"{PACKAGE}.cli.agent"
    }
    top = [node for node in MODULES[f"{PACKAGE}.cli.agent"].tree.body if not isinstance(node, ast.FunctionDef)]
    assert not loads(imported for node in top for imported in _imports(ast.Module([node], [])))


def test_what_downloads_is_loaded_where_it_is_needed_and_not_before() -> None:
    top = {
        imported
        for node in MODULES[INLINE].tree.body
        for imported in _imports(ast.Module([node], []))
        if not isinstance(node, ast.FunctionDef)
    }
    assert not {imported for imported in top if _layer_of(imported) not in {None, "config", "ports"}}


def test_loading_the_adapter_loads_no_command_line_library() -> None:
    program = "import sys, shaken_plugin.adapters.kamailio; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{ROOT.parent}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stdout.split())
    assert "shaken_plugin.switch" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in NOT_IN_A_SWITCH}
    assert not {
        name
        for name in loaded
        if name.startswith(
            (
                "shaken_plugin.cli",
                "shaken_plugin.fetch",
                "shaken_plugin.agent",
                "shaken_plugin.lab",
                "shaken_plugin.probe",
            )
        )
    }


@each_module
def test_modules_are_imported_by_statements_alone(module: Module) -> None:
    calls = [node.func for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    names = {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in calls}
    # The table of commands is one of names within its own package, all of which a test loads.
    hidden = {"__import__"} if module.name == "shaken_plugin.cli" else {"import_module", "__import__"}
    assert not names & hidden

"""What can be wrong with a switch's configuration, by name."""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from shaken_plugin.errors import Problem


class Severity(Enum):
    """How bad a finding is."""

    PROBLEM = "problem"
    """Calls are not signed, not verified or damaged, or the switch does not start."""
    WARNING = "warning"
    """It works, but not for every call, or slower, or nobody can say from here."""


class Kind(NamedTuple):
    """What one check says."""

    severity: Severity
    meaning: str


_P, _W = Severity.PROBLEM, Severity.WARNING


class Check(Enum):
    """The checks of ``shaken check-config --freeswitch``. The name in lower case is stable."""

    XML_UNREADABLE = Kind(_P, "a file that is included cannot be read, or is no plain file")
    XML_CYCLE = Kind(_P, "a file includes itself, directly or through others")
    XML_TOO_LARGE = Kind(_P, "more files, text or nesting than any real configuration has")
    XML_MALFORMED = Kind(_P, "the text is not XML; what comes after it was not checked")
    XML_DOCTYPE = Kind(_P, "a DOCTYPE or entity declaration: small files can unfold to gigabytes by it")
    XML_NOT_FOLLOWED = Kind(_W, "the preprocessor would run a program here; the check runs none")

    MODULE_NOT_LOADED = Kind(_P, "mod_python3 is not in modules.conf.xml")
    MODULE_MISSING = Kind(_P, "mod_python3.so is not where FreeSWITCH looks for modules")
    MODULE_PYTHON2 = Kind(_P, "mod_python is for Python 2; both serve the application 'python'")
    MODULE_UNREADABLE = Kind(_P, "mod_python3.so names no libpython that can be read")
    MODULES_UNKNOWN = Kind(_W, "the folder of modules was not found, so the module itself was not looked at")
    PYTHON_CONF_MISSING = Kind(_W, "without python.conf.xml nothing is warmed up: the first calls are slow")
    WARM_UP_MISSING = Kind(_W, "python.conf.xml does not start 'shaken': the first calls are slow")

    NATIVE_SIGNING = Kind(_P, "FreeSWITCH signs by itself, too: two Identity headers, or one from the wrong key")
    NATIVE_VERIFICATION = Kind(_P, "FreeSWITCH verifies by itself, too, and overwrites sip_verstat")
    NATIVE_PARAMETER = Kind(_W, "a setting of FreeSWITCH's own STIR/SHAKEN, of which nothing is used")
    HEADERS_DROPPED = Kind(_P, "sip_copy_custom_headers=false strips the Identity header of calls that pass through")
    HEADER_EXCLUDED = Kind(_P, "exclude_outgoing_extra_header keeps a header of ours from leaving")
    COMPACT_FORM_UNSEEN = Kind(_W, "an Identity header under its compact name 'y' is not seen on this profile")
    GATEWAY_FROM = Kind(_W, "From is the gateway's account; the number that is signed is not in From or PAI")

    NOT_USED = Kind(_P, "neither shaken::sign nor shaken::verify stands anywhere")
    SIGN_NOWHERE = Kind(_W, "nothing will be signed")
    VERIFY_NOWHERE = Kind(_W, "nothing will be verified")
    SIGN_WRONG_LEG = Kind(_P, "shaken::sign runs on a leg that does not leave: nothing is signed")
    UNKNOWN_FUNCTION = Kind(_P, "our script has no function of that name; the call goes on as if nothing had happened")

    PYTHONHOME = Kind(_P, "with PYTHONHOME FreeSWITCH does not start")
    VIRTUAL_ENV = Kind(_W, "VIRTUAL_ENV says nothing to mod_python3")
    PACKAGE_MISSING = Kind(_P, "shaken_plugin is not on the search path of FreeSWITCH's Python")
    PYTHON_MISMATCH = Kind(_P, "the packages are for another Python than the one mod_python3 links")
    SCRIPT_MISSING = Kind(_P, "shaken.py is not on the search path")
    SCRIPT_SHADOWED = Kind(_P, "another module named shaken comes first on the search path")
    SWITCH_MODULE_SHADOWED = Kind(_P, "another module named freeswitch comes before the switch's own")
    STACK_LIMIT = Kind(_W, "the limit of the stack is not what FreeSWITCH is built for")
    SETTINGS_MISSING = Kind(_P, "the settings file is not there")
    SETTINGS_UNREADABLE = Kind(_P, "the switch's user cannot read the settings file")

    @property
    def code(self) -> str:
        """The stable name."""
        return self.name.lower()


class Finding(NamedTuple):
    """One thing found: which check, and where, with what to do."""

    check: Check
    problem: Problem

    @property
    def severity(self) -> Severity:
        """See `Severity`."""
        return self.check.value.severity

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"code": self.check.code, **self.problem._asdict()}

    def __str__(self) -> str:
        # A line of 0 is a file as a whole, or what is no file at all.
        problem = self.problem
        where = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
        return ": ".join(filter(None, (where, problem.path, f"{problem.message} [{self.check.code}]")))


def at_whole(check: Check, where: object, message: str, path: str = "") -> Finding:
    """A finding about a file as a whole, or about something that is no file."""
    return Finding(check, Problem(str(where), 0, 0, path, message))

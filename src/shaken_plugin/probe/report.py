"""A run as plain data and as one HTML file without any reference outside itself.

What stands in messages was written by strangers: the template escapes every value, and bytes
that are no text are shown as escapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2

from shaken_plugin.probe.advice import Advice
from shaken_plugin.probe.findings import Leg, Verdict

MAX_SHOWN: Final = 20_000
"""Most characters of a message in the report."""


def as_data(verdicts: Sequence[Verdict], advice: Sequence[Advice]) -> dict[str, Any]:
    """The run for programs."""
    return {
        "preserved": all(verdict.preserved for verdict in verdicts),
        "server": next((verdict.server for verdict in verdicts if verdict.server), None),
        "calls": [_call(verdict) for verdict in verdicts],
        "advice": [
            {"finding": one.kind.name.lower(), "text": one.text, "source": one.source.name.lower()} for one in advice
        ],
    }


def _call(verdict: Verdict) -> dict[str, Any]:
    check = verdict.verification
    return {
        "name": verdict.name,
        "what": verdict.what,
        "preserved": verdict.preserved,
        "findings": [
            {
                "kind": finding.kind.name.lower(),
                "grade": finding.kind.grade.value,
                "header": finding.header or None,
                "text": finding.text,
                "diff": list(finding.diff),
            }
            for finding in verdict.findings
        ],
        "verifies": None if check is None else check.holds,
        "code": check.code or None if check else None,
        "detail": check.detail or None if check else None,
        "status": verdict.status,
        "sent_bytes": len(verdict.before.message.raw),
        "sent_at": verdict.before.at,
        "transport": verdict.before.transport or None,
        "received": [
            {"bytes": len(leg.message.raw), "transport": leg.transport or None, "from": leg.peer or None, "at": leg.at}
            for leg in verdict.after
        ],
    }


def printable(text: str) -> str:
    """The text with everything that no screen shows as an escape; line ends stay."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def _finalize(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _shown(leg: Leg) -> str:
    text = leg.message.raw.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    cut = f"\n… {len(text) - MAX_SHOWN} more characters" if len(text) > MAX_SHOWN else ""
    return text[:MAX_SHOWN] + cut


# --- The ladder -------------------------------------------------------------------------------

_COLUMN: Final = 300
_ROW: Final = 30
_LEFT: Final = 170
_TOP: Final = 48


def _ladder(verdict: Verdict, ends: tuple[str, str, str]) -> dict[str, Any]:
    """Lines and texts of the picture, in pixels."""
    start = min((step.at for step in verdict.trace), default=0.0)
    arrows = []
    for row, step in enumerate(verdict.trace):
        first, last = (_LEFT + place * _COLUMN for place in step.path)
        middle = (first + last) // 2
        label = step.label[:40] + (f" · {step.note}" if step.note else "")
        arrows.append(
            {
                "y": _TOP + 30 + row * _ROW, "x1": first, "x2": last, "middle": middle, "label": label,
                "time": f"{step.at - start:.3f} s", "identity": bool(step.note),
            }
        )  # fmt: skip
    height = _TOP + 40 + len(arrows) * _ROW
    columns = [{"x": _LEFT + place * _COLUMN, "title": title[:40]} for place, title in enumerate(ends)]
    return {"arrows": arrows, "columns": columns, "height": height, "width": 2 * _LEFT + 2 * _COLUMN}


def as_html(
    verdicts: Sequence[Verdict], advice: Sequence[Advice], *, title: str, now: float, ends: tuple[str, str, str]
) -> str:
    """The run as an HTML document.

    Args:
        verdicts: in the order to show.
        advice: what to change.
        title: what was probed.
        now: POSIX seconds.
        ends: names of the caller, the PBX and the listener.
    """
    calls = [
        {
            "verdict": verdict,
            "ladder": _ladder(verdict, ends),
            "findings": [
                {
                    "title": finding.kind.title, "grade": finding.kind.grade.value, "text": finding.text,
                    "header": finding.header, "diff": list(finding.diff),
                }
                for finding in verdict.findings
            ],
            "sent": _shown(verdict.before),
            "received": [_shown(leg) for leg in verdict.after],
        }
        for verdict in verdicts
    ]  # fmt: skip
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=_finalize
    )
    return environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        title=title,
        when=f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC",
        calls=calls,
        preserved=sum(verdict.preserved for verdict in verdicts),
        server=next((verdict.server for verdict in verdicts if verdict.server), ""),
        advice=advice,
    )


_TEMPLATE: Final = Path(__file__).with_name("report.html")

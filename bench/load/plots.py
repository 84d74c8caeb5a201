"""Pictures of a run: rate, latency and memory over time, with what happened meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bench.load.hosts import SIP_WORKER
from bench.load.observed import Observation
from bench.load.report import buckets

MARKS: Final = {
    "change": ("policy change", "#9ecae1"),
    "key": ("key rotated", "#e6820e"),
    "originating agent": ("originating agent away", "#d62728"),
    "terminating agent": ("terminating agent away", "#9467bd"),
}
"""How each kind of event is named and coloured."""

NAMED: Final = (SIP_WORKER, "agent", "Redis")
"""Processes with a colour of their own; the others of Kamailio do next to nothing."""


def draw(run: Observation, folder: Path) -> list[Path]:
    """``rate.png``, ``latency.png`` and ``memory.png``; the files."""
    return [_rate(run, folder / "rate.png"), _latency(run, folder / "latency.png"), _memory(run, folder / "memory.png")]


def _rate(run: Observation, path: Path) -> Path:
    figure, (axes,) = _figure(1)
    found = buckets(run)[:-1]  # the last second is not a whole one
    at = [one.at for one in found]
    for name, values, colour in (
        ("placed", [one.placed for one in found], "#444444"),
        ("answered", [one.answered for one in found], "#2ca02c"),
        ("refused", [one.refused for one in found], "#8c564b"),
    ):
        axes.plot(at, values, label=name, color=colour, linewidth=1.2)
    axes.set_ylabel("calls a second")
    axes.set_ylim(bottom=0)
    axes.set_title("Calls placed, and what became of them", loc="left")
    return _save(run, figure, [axes], path)


def _latency(run: Observation, path: Path) -> Path:
    figure, (axes,) = _figure(1)
    found = [one for one in buckets(run) if one.latency]
    for name, colour in (("max", "#d62728"), ("p95", "#ff7f0e"), ("p50", "#1f77b4")):
        axes.plot(
            [one.at for one in found], [one.latency[name] for one in found], label=name, color=colour, linewidth=1.2
        )
    axes.set_yscale("log")
    axes.set_ylabel("ms, from INVITE to ringing or refusal")
    axes.set_title("How long callers waited, by the second in which they called", loc="left")
    return _save(run, figure, [axes], path)


def _memory(run: Observation, path: Path) -> Path:
    figure, rows = _figure(2)
    colours = iter(f"C{number}" for number in range(100))
    shades: dict[str, str] = {}
    for (name, _), samples in run.memory.items():
        axes = rows[name.startswith("terminating")]
        at = [one.at - run.begin for one in samples]
        values = [one.octets / 2**20 for one in samples]
        if any(part in name for part in NAMED):
            label = None if name in shades else name
            shades.setdefault(name, next(colours))
            axes.plot(at, values, label=label, color=shades[name], linewidth=1.4)
        else:
            axes.plot(at, values, color="#cccccc", linewidth=0.7, zorder=1)
    for name, samples in run.pools.items():
        at, values = [one.at - run.begin for one in samples], [one.octets / 2**20 for one in samples]
        rows[name.startswith("terminating")].plot(
            at, values, label=f"{name}, in use", color="#444444", linewidth=1.4, linestyle="--"
        )
    for axes in rows:
        axes.set_ylabel("MiB")
        axes.set_ylim(bottom=0)
    rows[0].set_title(
        "Memory of each process' own: originating host and Redis above, terminating host below; grey: other processes",
        loc="left",
    )
    return _save(run, figure, rows, path)


def _figure(rows: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # noqa: PLC0415  # optional

    figure = Figure(figsize=(12, 1.2 + 3.6 * rows), layout="constrained")
    return figure, list(figure.subplots(rows, squeeze=False, sharex=True)[:, 0])


def _save(run: Observation, figure: Any, rows: list[Any], path: Path) -> Path:
    for axes in rows:
        known: set[str] = set()
        for event in run.events:
            name, colour = MARKS[event.kind]
            label = None if name in known else name
            known.add(name)
            begin, end = event.begin - run.begin, event.end - run.begin
            if event.kind.endswith("agent"):
                axes.axvspan(begin, end, color=colour, alpha=0.18, label=label, zorder=0)
            else:
                axes.axvline(begin, color=colour, linewidth=1.0, alpha=0.9, label=label, zorder=0)
        axes.grid(alpha=0.25)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    rows[-1].set_xlabel("seconds since the first call")
    rows[-1].set_xlim(0, run.end - run.begin)
    figure.savefig(path, dpi=110)
    return path

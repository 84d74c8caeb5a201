"""``python -m tests.conformance FILE…``: score the verifier on case files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.conformance.runner import Outcome, run


def main(files: list[str]) -> int:
    """Run every case of the files and print what is not as expected."""
    if not files:
        print("usage: python -m tests.conformance FILE…", file=sys.stderr)
        return 2
    try:
        outcomes = [run(case) for file in files for case in _cases(Path(file))]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        print(f"not a file of conformance cases: {exc!r}", file=sys.stderr)
        return 2
    strict = [outcome for outcome in outcomes if outcome.strict]
    lenient = [outcome for outcome in outcomes if not outcome.strict]
    crashed = [outcome for outcome in lenient if outcome.crash]
    for outcome in lenient:
        _report(outcome, "not as recommended")
    right = sum(outcome.right for outcome in lenient)
    print(f"not strict: {right} as recommended, {len(lenient) - right} otherwise, {len(crashed)} of them crashed")
    for outcome in strict:
        _report(outcome, "FAILED")
    failed = sum(not outcome.right for outcome in strict)
    print(f"{len(strict) - failed} passed, {failed} failed")
    return 1 if failed or crashed else 0


def _cases(file: Path) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["cases"]
    return cases


def _report(outcome: Outcome, word: str) -> None:
    if outcome.crash:
        print(f"{outcome.id}: {word}: crashed: {outcome.crash}")
    for line in outcome.wrong:
        print(f"{outcome.id}: {word}: {line}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

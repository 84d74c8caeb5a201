"""These take minutes: they are collected by ``make test-large`` (``pytest -m large``) alone."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if "large" in (config.option.markexpr or "") else True

"""A provider in a folder, and changing its settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from shaken_plugin.lab.pki import Authority
from shaken_plugin.lab.provider import Provider, dump
from tests.conftest import NOW


@pytest.fixture
def provider(tmp_path: Path, authority: Authority) -> Provider:
    return Provider.make(tmp_path / "provider", authority, NOW)


@pytest.fixture
def change(provider: Provider) -> Callable[..., None]:
    """Changes settings; a section given is put over the one that is there."""

    def apply(**sections: Any) -> None:
        data = yaml.safe_load(provider.settings.read_text())
        for name, value in sections.items():
            data[name] = {**data.get(name, {}), **value} if isinstance(value, dict) else value
        dump(provider.settings, data)

    return apply

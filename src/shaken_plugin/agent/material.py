"""Keys and trust anchors of the store that this host cannot use: alarms, before a start is refused for them.

Running switches go on with what they had, and the next start of one is refused: somebody has to know before.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Final

from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.certs.stored import anchors_in, open_pair
from shaken_plugin.config.references import keyring_of
from shaken_plugin.config.sections import Settings
from shaken_plugin.config.yamlfile import render
from shaken_plugin.core.material import Material, StoredAnchors, StoredPair
from shaken_plugin.errors import CredentialError, StoreUnavailable, VerificationFailure
from shaken_plugin.stores.sqlite.material import MaterialFile

EVERY: Final = 5.0
"""Seconds between two looks at the policy version."""
ANEW: Final = 60.0
"""Seconds after which all is checked though the version stays: a key-encryption key may be gone."""

_KEY: Final = "key_unusable"
_ANCHORS: Final = "anchors_unusable"
_Trouble = dict[tuple[str, str], str]
"""Texts of alarms by name, and what they are about."""


class MaterialCheck:
    """Opens every key, reads all anchors, and keeps none.

    Args:
        settings: of this host.
        alarms: told of what cannot be used.
        clock: POSIX seconds.
    """

    def __init__(self, settings: Settings, alarms: Alarms, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._alarms = alarms
        self._clock = clock
        self._version: Hashable = None
        self._checked = -math.inf
        self._failures = 0
        self._on: _Trouble = {}

    def configure(self, settings: Settings) -> None:
        """Take over settings."""
        self._settings, self._version = settings, None

    async def look(self) -> None:
        """Check what changed; called every `EVERY` seconds."""
        found = await asyncio.to_thread(self._look)
        for name, about in self._on.keys() - found.keys():
            self._alarms.clear(name, about)
        for (name, about), text in found.items():
            self._alarms.on(name, text, about)
        self._on = found

    def _look(self) -> _Trouble:
        settings, now = self._settings, self._clock()
        path = Path(settings.store.path)
        store = MaterialFile(path)
        try:
            version = store.version()
            if version == self._version and 0 <= now - self._checked < ANEW:
                return self._on
            material = store.material()
        except StoreUnavailable as exc:
            self._failures += 1
            # Once is nothing: somebody may hold a lock. A store that nothing was put into yet is none, either.
            if self._failures < 2 or _is_empty(path):
                return self._on
            return {**self._on, (_KEY, ""): f"keys and trust anchors of the store cannot be read: {exc}"}
        finally:
            store.close()
        self._version, self._checked, self._failures = version, now, 0
        return {(name, about): text for name, about, text in _troubles(settings, material)}


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _troubles(settings: Settings, material: tuple[Material, ...]) -> Iterator[tuple[str, str, str]]:
    """What keeps a switch with these settings from starting, or from taking over a change."""
    mistakes: list[str] = []
    keyring = keyring_of(settings, lambda place, text: mistakes.append(f"{render(place)}: {text}"))
    if keyring is None:
        yield _KEY, "", "; ".join(mistakes)
    lab_hosts = frozenset(settings.verification.lab_hosts)
    spcs = {} if settings.signing.mode == "off" else {one.name: one.spc for one in settings.signing.credentials}
    for one in material:
        if isinstance(one, StoredPair) and one.credential in spcs and keyring is not None:
            try:
                open_pair(keyring, one, spcs[one.credential], lab_hosts)
            except CredentialError as exc:
                yield _KEY, one.name, str(exc)
        if isinstance(one, StoredAnchors) and _believed(settings):
            try:
                list(anchors_in([one]))
            except VerificationFailure as failure:
                yield _ANCHORS, one.name, f"trust anchors {one.name} of the store: {failure.detail}"


def _believed(settings: Settings) -> bool:
    return settings.verification.mode != "off" and settings.verification.stored_anchors

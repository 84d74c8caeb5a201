"""The ledger that settings name. No switch process loads this."""

from __future__ import annotations

from shaken_plugin.config.sections import Settings
from shaken_plugin.config.settings import resolve
from shaken_plugin.errors import StoreError
from shaken_plugin.records.ledger import Ledger


def open_ledger(settings: Settings) -> Ledger:
    """The ledger, which is opened when it is used.

    Raises:
        StoreError: it cannot be: the password is not where the settings say, or a library is missing.
    """
    reference = settings.records.ledger_password
    try:
        password = None if reference is None else resolve(reference).decode().strip()
    except ValueError as exc:
        raise StoreError(f"records.ledger_password: {exc}") from exc
    return Ledger(settings.records.ledger, password)

"""One switch process: what it says and does at the start, and at a reload of the script."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shaken_plugin import __version__, runtime
from shaken_plugin.config.settings import settings_path
from shaken_plugin.errors import FileProblems, ShakenError
from shaken_plugin.ports import Observer, Severity
from shaken_plugin.switch.guard import Switch
from shaken_plugin.switch.waiting import WaitingRoom

_VARIANT: Final = dict(zip("0123456789abcdef", 4 * "89ab", strict=True))


def random_uuid() -> str:
    """What ``str(uuid.uuid4())`` makes (RFC 9562 §5.4), in less than half the time: each call of a limit has one."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


class Process:
    """What outlives a reload of the script: its module is imported anew, this one is not."""

    switch: Switch | None = None
    observer: Observer | None = None
    inline: runtime.Inline | None = None


def load(
    make_observer: Callable[[], Observer], path: Path | None = None, inline: runtime.Inline | None = None
) -> Switch:
    """The switch of this process: made before the fork, with new settings after a reload.

    Args:
        make_observer: gives the switch's log and counters; asked at the start alone.
        path: the settings file, by default from ``SHAKEN_SETTINGS``.
        inline: `runtime.inline.download_inline`, where the calls of the switch are threads: without an
            agent this process then downloads. Asked for at the start alone.

    Raises:
        RuntimeError: at the start, where a file has mistakes. They are all in the log.
    """
    now = time.time()
    if Process.switch is None or Process.observer is None:
        observer = make_observer()
        path = path or settings_path()
        try:
            services = runtime.start(path, now, inline)
        except FileProblems as exc:
            for problem in exc.problems:
                observer.log(Severity.ERROR, f"shaken: {problem}")
            raise RuntimeError(f"shaken: {path} is refused, see the {len(exc.problems)} lines above") from None
        switch = Switch(services, observer, time.time, random_uuid, WaitingRoom())
        Process.switch, Process.observer, Process.inline = switch, observer, inline
        _report_start(observer, services, now)
        # What is here now stays until the end. No collection looks at it again, and writes to each page of it:
        # processes that are forked go on sharing them.
        gc.collect()
        gc.freeze()
        return switch
    switch, observer = Process.switch, Process.observer
    store = Path(switch.services.settings.store.path)
    try:
        switch.services, version = runtime.reload(store, now, Process.inline)
    except ShakenError as exc:
        for line in str(exc).splitlines():
            observer.log(Severity.ERROR, f"shaken: reload refused, the old settings stay: {line}")
    except Exception as exc:  # a worker must survive whatever a reload finds
        switch.fault("reload", exc)
    else:
        observer.log(Severity.INFO, f"shaken: settings reloaded, policy version {version}")
        _report_warnings(observer, switch.services)
    return switch


def _report_start(observer: Observer, services: runtime.Services, now: float) -> None:
    """Say loudly what is on and what is not: nothing may be silently absent."""
    settings = services.settings
    signing: str = settings.signing.mode
    if services.authentication is not None:
        names = []
        for credential in services.credentials.values():
            days = (credential.lasts_until(now) - now) / 86_400
            names.append(f"{credential.name} ({days:.1f} days)")
        signing += f" with {', '.join(names)}"
    verification: str = settings.verification.mode
    if services.verification is not None:
        verification += f" with {services.verification.anchors.count} trust anchors"
    observer.log(
        Severity.INFO,
        f"shaken-plugin {__version__}: signing {signing}; verification {verification}, "
        f"revocation {'not checked' if services.revocation is None else settings.verification.revocation}; "
        f"policy in {settings.store.path}{_fleet(services)}; certificates in {settings.verification.certificates} and "
        f"{settings.verification.cache}; {_agent(services)}",
    )
    _report_warnings(observer, services)


def _fleet(services: runtime.Services) -> str:
    chosen = services.settings.store
    return "" if chosen.redis is None else f", the copy of fleet {chosen.redis.fleet} that the agent keeps"


def _report_warnings(observer: Observer, services: runtime.Services) -> None:
    for warning in services.warnings:
        observer.log(Severity.WARNING, f"shaken: {warning}")


def _agent(services: runtime.Services) -> str:
    """Who downloads what is not at hand: this process only where its calls are threads."""
    if services.fetcher is None:
        return 'no agent: a certificate that is not at hand is "not yet", nothing is downloaded'
    if not services.settings.agent.enabled:
        return (
            "no agent: a certificate that is not at hand is downloaded by this process, a call waits at most "
            f"{services.settings.verification.wait:.1f} s"
        )
    socket = services.settings.agent.socket
    if not services.fetcher.alive():
        return f'no agent answers on {socket} now: until one does, a certificate that is not at hand is "not yet"'
    return f"what is not at hand is asked of the agent on {socket}"

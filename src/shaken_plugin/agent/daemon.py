"""The daemon: everything put together, from start to SIGTERM.

SIGHUP takes new settings where that is possible without a restart: trust lists, revocation
lists, limits. A settings file with mistakes changes nothing, with an alarm.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from shaken_plugin import __version__
from shaken_plugin.agent.alarms import Alarms
from shaken_plugin.agent.callrequests import CallRequests
from shaken_plugin.agent.clock import ClockCheck, Watched
from shaken_plugin.agent.counting import COLLECT_EVERY as TOLD_EVERY
from shaken_plugin.agent.counting import Counting
from shaken_plugin.agent.documents import Documents, Limits
from shaken_plugin.agent.fleetstate import FleetState
from shaken_plugin.agent.hoststatus import ThisHost
from shaken_plugin.agent.index import Index
from shaken_plugin.agent.ledger import RETRY_PRUNE, LedgerKeeper
from shaken_plugin.agent.material import EVERY as MATERIAL_EVERY
from shaken_plugin.agent.material import MaterialCheck
from shaken_plugin.agent.metrics import CountingObserver, Metrics
from shaken_plugin.agent.offences import Offences, following
from shaken_plugin.agent.parts import Parts
from shaken_plugin.agent.recorder import Recorder
from shaken_plugin.agent.server import Listener, Server
from shaken_plugin.agent.shared import PROBE_EVERY, FleetCounts
from shaken_plugin.agent.trusted import Keeping
from shaken_plugin.agent.web import Web
from shaken_plugin.certs.cache import CacheWriter
from shaken_plugin.config.sections import Settings
from shaken_plugin.errors import FileProblems, StoreUnavailable
from shaken_plugin.fetch import warm_up
from shaken_plugin.ports import Observer, Severity
from shaken_plugin.stores.limiter import uptime
from shaken_plugin.telemetry import clean

FLUSH_EVERY: Final = 2.0
SWEEP_EVERY: Final = 300.0
CALLS_EVERY: Final = 5.0
OFFENCES_EVERY: Final = 0.25
COLLECT_EVERY: Final = 0.25
MEASURE_EVERY: Final = 5.0


def limits_of(settings: Settings) -> Limits:
    """The bounds that settings give."""
    agent = settings.agent
    return Limits(
        agent.max_fetches,
        agent.max_per_host,
        agent.keep_days * 86_400.0,
        float(agent.stale),
        frozenset(settings.verification.lab_hosts),
    )


class Agent:
    """One daemon.

    Args:
        settings: checked.
        load: reads the settings anew, for SIGHUP; raises `FileProblems`.
        parts: see there.
        observer: takes log lines.
        clock: POSIX seconds.

    Raises:
        SocketTaken: another agent runs, or the socket's folder cannot be written to.
        OSError: the address for metrics is taken.
        FileProblems: anchors or signers cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        parts: Parts,
        observer: Observer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._load = load
        self._observer = observer
        self._clock = clock
        self.metrics = Metrics()
        self.alarms = Alarms(observer, self.metrics.alarms, clock)
        self._downloader = Watched(parts.downloader(settings), ClockCheck(self.alarms, self.metrics.clock))
        writer = CacheWriter(Path(settings.verification.cache))
        self._recorder = Recorder(writer, self.alarms, self.metrics, self._lost)
        self._keeping = Keeping(parts, self._downloader, self._recorder, self.alarms, self.metrics, clock)
        self._documents = Documents(
            self._downloader,
            self._recorder,
            Index(settings.agent.max_documents, settings.agent.max_bytes),
            self._keeping.judge,
            limits_of(settings),
            clock,
            self.alarms,
            self.metrics,
        )
        self._material = MaterialCheck(settings, self.alarms, clock)
        self._calls = parts.calls(settings, CountingObserver(observer, self.metrics))
        self._fleet_state = FleetState(settings, self.alarms, observer)
        self._offences = Offences(
            settings,
            following,
            self.alarms,
            observer,
            clock,
            self._fleet_state.claims,
            lambda: self._ledger.unauthorised,
        )
        self._ledger = LedgerKeeper(self.alarms, self.metrics, clock, self._offences.seen)
        fleet = parts.fleet(settings)
        self.host = ThisHost(settings, fleet, self._ledger.collected, self.alarms, self.metrics, clock)
        self._shared = None
        if fleet is not None and fleet.counts is not None:
            self._shared = FleetCounts(fleet.counts, self.host.breaker, lambda: self.host.report.live)
        file, beside = Path(settings.agent.socket).with_suffix(".slots.sqlite"), Path(settings.store.path).parent
        self.counting = Counting(file, beside, self.alarms, self.metrics, uptime, self._shared, self._calls)
        self.host.report.parts["limits"] = self.counting.status
        self._requests = CallRequests(self.counting, self._shared)
        self._server = Server(self._documents, self.metrics, self._requests)
        if self._fleet_state.claims is not None:
            self.host.report.parts["state"] = self._fleet_state.status
        self._stop = asyncio.Event()
        self._begun = clock()
        self._restored = False
        self._anew = False
        """Settings of calls are to be taken, whether they changed or not."""

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        settings = self._settings
        self._keeping.configure(settings)
        self._ledger.configure(settings)
        with contextlib.ExitStack() as stack:
            listener = Listener(Path(settings.agent.socket))
            stack.callback(listener.close)
            host, _, port = settings.agent.listen.rpartition(":")
            web = Web(host.strip("[]"), int(port), self.metrics.registry)
            stack.callback(web.close)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop.set)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            await warm_up()
            await self._restore()
            self.counting.open()
            stack.callback(self.counting.close)
            server = await self._server.start(listener)
            await self._look_at_calls()  # only now: they ask on that socket
            tasks = [
                asyncio.create_task(self._forever(name, every, work))
                for name, every, work in (
                    ("refresh", 1.0, self._tick),
                    ("flush", FLUSH_EVERY, self._flush),
                    ("sweep", SWEEP_EVERY, self._sweep),
                    ("health", 1.0, lambda: self._show(web)),
                    ("keys", MATERIAL_EVERY, self._material.look),
                    ("calls", CALLS_EVERY, self._look_at_calls),
                    ("offences", OFFENCES_EVERY, self._offences.look),
                    ("warnings", OFFENCES_EVERY, self._offences.deliver),
                    ("fleet state", OFFENCES_EVERY, self._fleet_state.look),
                    ("ledger", COLLECT_EVERY, self._ledger.collect_when_due),
                    ("spool", MEASURE_EVERY, self._ledger.measure),
                    ("prune", RETRY_PRUNE, self._ledger.prune_when_due),
                    ("limits", 1.0, self.counting.look),
                    ("told", TOLD_EVERY, self.counting.collect_when_due),
                    *([("counts", PROBE_EVERY, self._shared.look)] if self._shared is not None else []),
                    *self.host.jobs(),
                )
            ]
            self._keeping.start()
            self._fleet_state.start()
            self.host.start()
            self._say(f"agent {__version__}: socket {listener.path}, http://{host}:{web.port}/health")
            notify("READY=1")
            await self._stop.wait()
            notify("STOPPING=1")
            server.close()
            await self._end(tasks)
        self._say("agent: ended")

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        if self._calls is not None:
            await self._calls.close()
        await self._keeping.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.host.close()
        await self._offences.close()
        await self._fleet_state.close()
        await self._documents.close()
        await self._server.close()
        await self.counting.leave()
        if self._shared is not None:  # only now: until their connections end, workers ask
            self._shared.close()
        await self._recorder.close()
        await self._downloader.close()
        self._ledger.close()

    async def _restore(self) -> None:
        """Take over what lies in the file, also later where it could not be read at the start."""
        if self._restored:
            return
        try:
            await self._recorder.open()
            self._documents.load(await self._recorder.run(CacheWriter.documents))
            self._keeping.resume(await self._recorder.run(CacheWriter.revocation_lists))
            self._restored = True
        except StoreUnavailable:
            return  # alarmed; begun with empty hands, and tried again

    def _lost(self) -> None:
        self._documents.lost()
        self._keeping.lost()

    # --- What happens now and then --------------------------------------------------------------

    async def _forever(self, name: str, every: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something again and again, whatever it raises."""
        while True:
            try:
                await work()
            except Exception as exc:
                self.alarms.on("fault", f"{name}: {exc!r}", lasts=60.0)
            await asyncio.sleep(every)

    async def _tick(self) -> None:
        self._documents.refresh()
        self._keeping.look()
        self.alarms.tick()

    async def _flush(self) -> None:
        await self._restore()
        with contextlib.suppress(StoreUnavailable):  # alarmed; tried again
            await self._recorder.flush()

    async def _sweep(self) -> None:
        self._documents.sweep()
        if self._restored:  # before, it is not known which lists certificates name
            with contextlib.suppress(StoreUnavailable):  # alarmed; tried again
                await self._keeping.tidy()

    async def _look_at_calls(self) -> None:
        """Serve calls, where that is wanted, with the settings that are in force."""
        if self._calls is None:
            return
        anew, self._anew = self._anew, False
        try:
            await self._calls.look(anew=anew)
        except (RuntimeError, OSError) as exc:
            self.alarms.on("calls_not_served", f"calls over agent.esl.listen go on unsigned and unverified: {exc}")
        else:
            self.alarms.clear("calls_not_served")

    async def _show(self, web: Web) -> None:
        web.alive(self.health())

    def health(self) -> dict[str, Any]:
        """What the health page says."""
        now = self._clock()
        alarms = [
            {"name": alarm.name, "about": alarm.about, "seconds": round(now - alarm.since), "text": alarm.text}
            for alarm in self.alarms.now()
        ]
        return {
            "status": "alarm" if alarms else "ok",
            "version": __version__,
            "pid": os.getpid(),
            "up_seconds": round(now - self._begun),
            "alarms": alarms,
            "documents": len(self._documents.index),
            "document_bytes": self._documents.index.bytes,
            "lists": self._keeping.status(now),
            "host": self.host.report.status.model_dump(mode="json"),
        }

    def _reload(self) -> None:
        notify("RELOADING=1")
        self._anew = True
        try:
            settings = self._load()
            self._keeping.configure(settings)
        except FileProblems as exc:
            self.alarms.on("settings_refused", f"{exc}; the old settings stay")
        else:
            self.alarms.clear("settings_refused")
            self._offences.configure(settings)
            self._material.configure(settings)
            self._documents.limits = limits_of(settings)
            self._documents.index.max_documents = settings.agent.max_documents
            self._documents.index.max_bytes = settings.agent.max_bytes
            self._keeping.start()
            self._ledger.configure(settings)
            self._say("agent: settings reloaded")
            if _fixed(settings) != _fixed(self._settings):
                text = "socket, listen, esl.listen, cache, store or lab_hosts changed: restart the agent for these"
                self._observer.log(Severity.WARNING, f"agent: {text}")
        notify("READY=1")

    def _say(self, text: str) -> None:
        self._observer.log(Severity.INFO, clean(text))


def _fixed(settings: Settings) -> tuple[object, ...]:
    """What only a restart changes."""
    agent, verification = settings.agent, settings.verification
    store = settings.store.path, settings.store.state, settings.store.redis, settings.store.max_age
    return agent.socket, agent.listen, agent.esl.listen, verification.cache, *store, verification.lab_hosts


def notify(state: str) -> None:
    """Tell systemd how we are, where it wants to know: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if state == "RELOADING=1":
        state += f"\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address.replace("@", "\0", 1))

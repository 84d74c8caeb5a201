"""Where FreeSWITCHes connect to for each leg: bounded, timed, and a call goes on whatever happens here."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from shaken_plugin.adapters.freeswitch import functions
from shaken_plugin.adapters.freeswitch.dump import DumpError
from shaken_plugin.adapters.freeswitch.esl.conversation import Conversation
from shaken_plugin.adapters.freeswitch.esl.ends import AGAIN, HELD, WATCH, Ends, beginning_again, making
from shaken_plugin.adapters.freeswitch.esl.text import ConversationError
from shaken_plugin.adapters.freeswitch.esl.wire import MAX_FIELDS, PeerGone
from shaken_plugin.adapters.freeswitch.leg import Command, Follow, Leg
from shaken_plugin.errors import StoreError, StoreUnavailable
from shaken_plugin.ports import Observer
from shaken_plugin.stores.presence import leg_owner
from shaken_plugin.stores.sqlite import read_header
from shaken_plugin.switch import Switch

MAX_CONNECTIONS: Final = 256
"""Legs at one time. A connection costs a task and some hundred KiB."""

SPARE: Final = 8
"""Threads beside those that may wait for a certificate."""

PATIENCE: Final = 2.0
"""Seconds a leg gives the work, beyond the time it may wait for a certificate."""

Work = Callable[[Switch, Leg], list[Command]]


class EventSocket:
    """Carries out the `functions` for the legs that FreeSWITCHes connect for; an `agent.parts.Calls`.

    Args:
        address: ``HOST:PORT`` to listen on.
        load: gives the switch of this process, with the settings that are in force; may raise
            RuntimeError, with the reasons in the log.
        observer: log and counters.
    """

    def __init__(self, address: str, load: Callable[[], Switch], observer: Observer) -> None:
        self._address = address
        self._load = load
        self._observer = observer
        self._switch: Switch | None = None
        self._version: int | None = None
        self._server: asyncio.Server | None = None
        self._workers: ThreadPoolExecutor | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._watches: set[asyncio.Task[None]] = set()
        self._ends = Ends(self._ended)
        self.resume, self.follows = self._ends.resume, self._ends.follows

    async def look(self, *, anew: bool = False) -> None:
        """Begin to listen, or take the settings that are in force, if they changed or are asked for ``anew``.

        Raises:
            RuntimeError: the settings are refused.
            OSError: the address is taken.
        """
        version = await asyncio.to_thread(self._in_force)
        if self._switch is None or anew or version not in {None, self._version}:
            self._switch = await asyncio.to_thread(self._load)
            self._switch.tells_ends = True
            self._switch.to_tell_ends = "FreeSWITCH makes no channel that tells them (is mod_loopback loaded?)"
            self._version = await asyncio.to_thread(self._in_force)
        if self._server is None:
            host, _, port = self._address.rpartition(":")
            self._server = await asyncio.start_server(self._connected, host.strip("[]"), int(port), limit=MAX_FIELDS)

    def _in_force(self) -> int | None:
        if self._switch is None:
            return None
        try:
            return read_header(Path(self._switch.services.settings.store.path)).settings_version
        except (StoreUnavailable, StoreError):
            return None  # said by whoever signs

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Serve those who are connected to their end, for a short time, and nobody any more."""
        if self._server is not None:
            self._server.close()
        if legs := self._open - self._watches:
            await asyncio.wait(legs, timeout=PATIENCE)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        if self._workers is not None:
            self._workers.shutdown(wait=False, cancel_futures=True)

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        task, switch = asyncio.current_task(), self._switch
        assert task is not None
        assert switch is not None
        if len(self._open) >= MAX_CONNECTIONS:
            switch.warn("esl_full", f"shaken: {MAX_CONNECTIONS} legs at one time; this one goes on without us")
            writer.transport.abort()
            return
        self._open.add(task)
        conversation = Conversation(reader, writer, partial(self._follow, switch, writer))
        try:
            async with asyncio.timeout(PATIENCE + switch.services.settings.verification.wait):
                await self._serve(switch, conversation, writer)
            if _is_watch(conversation):
                self._watches.add(task)
                await self._watch(conversation, _own(writer))
        except PeerGone:
            self._observer.count("esl_gone")  # most often a caller who gave up
        except (ConversationError, DumpError) as exc:
            switch.warn("esl_refused", f"shaken: a connection to agent.esl.listen is refused: {exc}")
        except Exception as exc:
            commands = functions.survive(switch, conversation.leg, _where(conversation), exc)
            with suppress(Exception):
                async with asyncio.timeout(PATIENCE):
                    await conversation.carry_out(commands)
        finally:
            try:
                conversation.end()
            finally:
                await self._end(task, writer)

    async def _end(self, task: asyncio.Task[None], writer: StreamWriter) -> None:
        """Close a connection; until its socket is closed it is among the open, for which `close` waits."""
        try:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()
            with suppress(Exception):
                await writer.wait_closed()
        finally:
            self._open.discard(task)
            self._watches.discard(task)

    async def _serve(self, switch: Switch, conversation: Conversation, writer: StreamWriter) -> None:
        await conversation.begin()
        if _is_watch(conversation):
            return
        path = conversation.leg.get("socket_path") or ""
        work = _functions(writer).get(path)
        if work is None:
            raise ConversationError(f"there is no /{path}; there are /verify, /sign and /pass_through")
        if self._ends.is_due(conversation.core):
            await conversation.ask(making(_own(writer)))
        asked = partial(_guarded, path, work, switch, conversation.leg)
        working = self._threads(switch).submit(asked)
        try:
            commands = await asyncio.wrap_future(working)
            await conversation.carry_out(commands)
        except BaseException:
            loop = asyncio.get_running_loop()
            working.add_done_callback(lambda done: loop.call_soon_threadsafe(self._give_back, conversation, done))
            raise

    def _give_back(self, conversation: Conversation, done: Future[list[Command]]) -> None:
        """The leg has ended, or nobody waited any longer: a call that was given a slot was not followed."""
        owner = leg_owner(conversation.core, conversation.first_uuid)
        if not done.cancelled() and not conversation.follows and not self._ends.follows(owner):
            for command in done.result():
                if isinstance(command, Follow):
                    self._ended(command.slot)

    async def _watch(self, conversation: Conversation, address: str) -> None:
        """Be told of ends, until that is needed no more; what goes on without us is not the channel."""
        if conversation.leg.get("socket_path") == AGAIN and self._ends.is_wanted(conversation.core):
            await conversation.ask(beginning_again(conversation.uuid, address))
            return
        await self._ends.serve(conversation)
        await conversation.hang_up()

    async def _follow(
        self, switch: Switch, writer: StreamWriter, uuid: str, slot: str, conversation: Conversation
    ) -> None:
        """Have a call keep its slot until its leg has ended; none that nobody would tell of keeps one."""
        core = conversation.core
        if self._ends.follows(leg_owner(core, uuid)) and not self._ends.is_wanted(core):
            return  # since another route was tried for it
        self._ends.hold(core, uuid, slot)
        begin = partial(conversation.ask, making(_own(writer)))
        try:
            watched = await self._ends.watched(core, begin)
            there = watched and await conversation.mark(uuid, HELD, slot)
        except BaseException:
            self._ends.told(core, uuid)  # without its mark nobody would tell of it
            raise
        if not watched:
            switch.warn_slotless()
        if there:
            owner = leg_owner(core, uuid)
            await asyncio.get_running_loop().run_in_executor(self._threads(switch), switch.followed, slot, owner)
        else:
            self._ends.told(core, uuid)  # it has ended already, or nobody will tell

    def _ended(self, slot: str) -> None:
        """A thread tells it: the counting answers over this very agent's socket."""
        if (switch := self._switch) is not None:
            asyncio.get_running_loop().run_in_executor(self._threads(switch), switch.ended, slot)

    def _threads(self, switch: Switch) -> ThreadPoolExecutor:
        if self._workers is None:
            number = SPARE + switch.services.settings.verification.max_waiting
            self._workers = ThreadPoolExecutor(number, thread_name_prefix="esl")
        return self._workers


def _guarded(path: str, work: Work, switch: Switch, leg: Leg) -> list[Command]:
    """What is to be done; nothing where that cannot be said. A SystemExit in a task would end the agent."""
    try:
        return work(switch, leg)
    except BaseException as exc:
        return functions.survive(switch, leg, path, exc)


def _functions(writer: StreamWriter) -> Mapping[str, Work]:
    """What can be asked for; legs that leave come back to where their first leg was connected to."""
    application = f"socket {_own(writer)}/sign full"
    return {
        "verify": functions.verify,
        "sign": partial(functions.sign, application=application, follows=True),
        "pass_through": functions.pass_through,
    }


def _is_watch(conversation: Conversation) -> bool:
    return conversation.leg.get("socket_path") in {WATCH, AGAIN}


def _own(writer: StreamWriter) -> str:
    host, port = writer.get_extra_info("sockname")[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _where(conversation: Conversation) -> str:
    path = conversation.leg.get("socket_path")
    return path if path in {"verify", "sign", "pass_through"} else "esl"

"""The counts of a fleet's calls in Redis: `core.limits.Tally` as scripts, by Redis's own clock; and PASSporTs seen.

What is of one customer lies in one slot of a Cluster: ``shaken:FLEET:{CUSTOMER}:NAME``. The names:

    arrivals            hash: scope → the theoretical arrival time of its next call
    levels              hash: call → level, of all calls that are known
    slots, slots:LEVEL  sorted sets: calls, by the end of their lease
    spared, noted       likewise: calls that are not counted
    bound               sorted set: calls, by the time until which they cannot be replaced
    repeats             hash: call → how often it was asked about again
    latest              hash: dialog → the call of it that came last
    referred, refers    hashes: target → call and time; call → target

Times are microseconds. All of it ends by itself where nobody renews it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from hashlib import sha1
from typing import Any, Final

from redis import exceptions

from shaken_plugin.core.limits import (
    AHEAD,
    MAX_AHEAD,
    NOTED,
    REPEATS,
    SECOND,
    SPARED,
    Outcome,
    Request,
    Verdict,
)
from shaken_plugin.stores.redis.connection import reaching
from shaken_plugin.stores.redis.log import FleetLog

LEASE: Final = 90 * SECOND
"""Microseconds for which a slot holds unless its host renews it."""

MAX_AT_ONCE: Final = 500
"""Leases renewed by one script: nobody else is answered meanwhile."""

MAX_ENDED: Final = 200
"""Slots, and calls that are not counted, which one script ends: a host that crashed may have had thousands."""

_NAMES: Final = (
    "arrivals", "levels", "slots", "slots:A", "slots:B", "slots:C", "spared", "noted", "bound", "repeats", "latest",
    "referred", "refers",
)  # fmt: skip

_COMMON: Final = (
    """
local arrivals, levels, slots, a, b, c, spared, noted, bound, repeats, latest, referred, refers = unpack(KEYS)
local of = {A = a, B = b, C = c}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if ARGV[2] ~= '' then now = tonumber(ARGV[2]) end
local lease = tonumber(ARGV[1])
local function text(number) return string.format('%.0f', number) end
local function number(value) return value and tonumber(value) or 0 end
local function count(call, level, till)
    redis.call('ZADD', slots, text(till), call)
    if of[level] then redis.call('ZADD', of[level], text(till), call) end
end
local function uncount(call, level)
    redis.call('ZREM', slots, call)
    if of[level] then redis.call('ZREM', of[level], call) end
end
local function dialog(call) return string.match(call, '^[^/]*') end
local function know(call, level)
    redis.call('HSET', levels, call, level)
    redis.call('HSET', latest, dialog(call), call)
end
local function finish(call)
    local level = redis.call('HGET', levels, call)
    if not level then return end
    uncount(call, level)
    redis.call('HDEL', levels, call)
    redis.call('ZREM', spared, call)
    redis.call('ZREM', noted, call)
    redis.call('ZREM', bound, call)
    redis.call('HDEL', repeats, call)
    if redis.call('HGET', latest, dialog(call)) == call then redis.call('HDEL', latest, dialog(call)) end
    local to = redis.call('HGET', refers, call)
    if to then redis.call('HDEL', referred, to) redis.call('HDEL', refers, call) end
end
for set, most in pairs({[slots] = lease, [a] = lease, [b] = lease, [c] = lease, [spared] = SPARED, [noted] = NOTED}) do
    for _, call in ipairs(redis.call('ZRANGEBYSCORE', set, '(' .. text(now + most), '+inf')) do
        redis.call('ZADD', set, text(now + most), call)
    end
end
for _, call in ipairs(redis.call('ZRANGEBYSCORE', spared, '-inf', text(now))) do
    local due = tonumber(redis.call('ZSCORE', spared, call))
    redis.call('ZREM', spared, call)
    count(call, redis.call('HGET', levels, call), due + lease)
end
for _, set in ipairs({slots, noted}) do
    for _, call in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', text(now), 'LIMIT', 0, ENDED)) do finish(call) end
end
local function is_over(call)
    for _, set in ipairs({slots, noted}) do
        local till = redis.call('ZSCORE', set, call)
        if till and tonumber(till) <= now then return true end
    end
    return false
end
local function end_if_over(call)
    if is_over(call) then finish(call) end
end
local function counted(set) return redis.call('ZCOUNT', set, '(' .. text(now), '+inf') end
local function hold(call, level)
    end_if_over(call)
    local known = redis.call('HGET', levels, call)
    if not known then know(call, level) end
    if redis.call('ZSCORE', spared, call) or redis.call('ZSCORE', noted, call) then return end
    count(call, known or level, now + lease)
end
local function keep()
    for index = 2, #KEYS do redis.call('PEXPIRE', KEYS[index], math.floor(lease / 500) + 600000) end
end
""".replace("SPARED", str(SPARED))
    .replace("NOTED", str(NOTED))
    .replace("ENDED", str(MAX_ENDED))
)
"""ARGV: microseconds of a lease, the time or '' for Redis's own, and what each script adds.

What is over counts no more (`counted`), also where it is of more than one run ends; when it is asked for, it is ended.
"""

ADMIT: Final = (
    _COMMON
    + """
local call, level, slot, to, spare, note, most, name, ahead = unpack(ARGV, 3, 11)
slot, spare, note, most = slot == '1', tonumber(spare), tonumber(note), tonumber(most)
local bounds, replaces, takes = {}, {}, false
for index = 1, tonumber(ARGV[12]) do
    local at = 9 + 4 * index
    bounds[index] = {ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])}
    if slot and bounds[index][4] > 0 then takes = true end
end
end_if_over(call)
for index = 13 + 4 * #bounds, #ARGV do
    end_if_over(redis.call('HGET', latest, ARGV[index]) or ARGV[index])
    replaces[#replaces + 1] = redis.call('HGET', latest, ARGV[index]) or ARGV[index]
end

if redis.call('HEXISTS', levels, call) == 1 then
    if redis.call('HINCRBY', repeats, call, 1) > most then return {'repeated', ''} end
    hold(call, level)
    keep()
    return {'known', ''}
end
local full, over
for _, found in ipairs(bounds) do
    local scope, interval, tolerance, most_at_a_time = unpack(found)
    local ahead = interval > 0 and number(redis.call('HGET', arrivals, scope)) - now or 0
    if ahead > tolerance and ahead <= tolerance + interval then return {'rate', scope} end
    if slot and most_at_a_time > 0 then
        local now_counted = counted(scope == '' and slots or of[scope])
        if not full and now_counted >= most_at_a_time then full = {'concurrent', scope} end
        if now_counted > most_at_a_time or redis.call('ZCARD', spared) >= most_at_a_time then over = true end
    end
end
local before
if takes and not over then
    local found = redis.call('HGET', referred, to)
    if found then end_if_over(string.match(found, '^(.*) %d+$')) end
    found = redis.call('HGET', referred, to)
    if found then
        local other, till = string.match(found, '^(.*) (%d+)$')
        if tonumber(till) > now then replaces[#replaces + 1] = other end
    end
    for _, other in ipairs(replaces) do
        end_if_over(other)
        if redis.call('ZSCORE', slots, other) then
            local fits = redis.call('HGET', levels, other) == level
            if not fits then
                fits = true
                for _, found in ipairs(bounds) do fits = fits and found[1] == '' end
            end
            if fits and number(redis.call('ZSCORE', bound, other)) <= now then before = other end
            break
        end
    end
end
if full and not before then return full end
local function arrive(scope, arrival)
    redis.call('HSET', arrivals, scope, text(arrival))
    local milliseconds = math.ceil((arrival - now) / 1000) + 1000
    if redis.call('PTTL', arrivals) < milliseconds then redis.call('PEXPIRE', arrivals, milliseconds) end
end
local booked = {}
for _, found in ipairs(bounds) do
    local scope, interval, tolerance = unpack(found)
    if interval > 0 then
        local arrival = number(redis.call('HGET', arrivals, scope))
        if arrival < now or arrival > now + tolerance + interval then arrival = now end
        booked[scope] = arrival + interval
        arrive(scope, booked[scope])
    end
end
if before then
    uncount(before, redis.call('HGET', levels, before))
    redis.call('ZADD', spared, text(now + spare), before)
    hold(call, level)
    redis.call('ZADD', bound, text(now + spare), call)
    keep()
    return {'replaces', ''}
elseif not takes then
    know(call, level)
    redis.call('ZADD', noted, text(now + note), call)
    keep()
    return {'admitted', '', '0'}
end
hold(call, level)
ahead = math.min(tonumber(ahead), MAX_AHEAD)
local room = ahead
for _, found in ipairs(bounds) do
    local scope, interval, tolerance, most_at_a_time = unpack(found)
    if room > 0 and interval > 0 then
        local first = math.max(booked[scope], now + AHEAD)
        room = math.min(room, math.floor((tolerance / 2 + now - first) / interval))
    end
    if room > 0 and most_at_a_time > 0 then
        room = math.min(room, math.floor(most_at_a_time / 2) - counted(scope == '' and slots or of[scope]))
    end
end
room = math.max(room, 0)
if room > 0 then
    for _, found in ipairs(bounds) do
        local scope, interval = unpack(found)
        if interval > 0 then arrive(scope, math.max(booked[scope], now + AHEAD) + room * interval) end
    end
    for index = 0, room - 1 do
        redis.call('HSET', levels, name .. '+' .. index, level)
        count(name .. '+' .. index, level, now + lease)
    end
end
keep()
return {'admitted', '', text(room)}
""".replace("MAX_AHEAD", str(MAX_AHEAD)).replace("AHEAD", str(AHEAD))
)
"""ARGV: call, level, slot as 1 or 0, to, microseconds spared, noted, most repeats, name and size of an allowance,
number of bounds, four values of each bound, calls that it may replace."""

END: Final = _COMMON + "for index = 3, #ARGV do finish(ARGV[index]) end"
"""ARGV: calls."""

HOLD: Final = _COMMON + "for index = 3, #ARGV, 2 do hold(ARGV[index], ARGV[index + 1]) end keep()"
"""ARGV: calls, each with its level."""

TAKE: Final = (
    _COMMON + "for index = 3, #ARGV, 3 do finish(ARGV[index]) hold(ARGV[index + 1], ARGV[index + 2]) end keep()"
)
"""ARGV: names of an allowance, each with the call that came in its place, and its level."""

REFER: Final = (
    _COMMON
    + """
local call, to, spare = unpack(ARGV, 3)
end_if_over(call)
if redis.call('HEXISTS', levels, call) == 1 then
    local before = redis.call('HGET', refers, call)
    if before then redis.call('HDEL', referred, before) end
    redis.call('HSET', referred, to, call .. ' ' .. text(now + tonumber(spare)))
    redis.call('HSET', refers, call, to)
    keep()
end
"""
)

COUNT: Final = _COMMON + "return counted(slots)"


class RedisCounts:
    """The counts of a fleet. Thread-safe; everything raises `StoreUnavailable` where Redis cannot be had.

    Args:
        log: of the fleet.
        at: gives microseconds instead of Redis's clock, for tests.
    """

    def __init__(self, log: FleetLog, at: int | None = None) -> None:
        self._log = log
        self.at = at

    def admit(self, request: Request) -> Verdict:
        """See `core.limits.Tally.admit`."""
        bounds = [value for bound in request.bounds for value in bound]
        words = [request.call, request.level, int(request.slot), request.to, SPARED, NOTED, REPEATS]
        words += [request.name, request.ahead, len(request.bounds)]
        found = self._run(ADMIT, request.customer, *words, *bounds, *request.replaces)
        outcome, scope, *ahead = (word.decode() if isinstance(word, bytes) else str(word) for word in found)
        return Verdict(Outcome(outcome), scope, int(ahead[0]) if ahead else 0)

    def end(self, customer: str, calls: Sequence[str]) -> None:
        """See `core.limits.Tally.end`."""
        self._run(END, customer, *calls)

    def refer(self, customer: str, call: str, to: str) -> None:
        """See `core.limits.Tally.refer`."""
        self._run(REFER, customer, call, to, SPARED)

    def hold(self, customer: str, calls: Sequence[tuple[str, str]]) -> None:
        """See `core.limits.Tally.hold`."""
        for first in range(0, len(calls), MAX_AT_ONCE):
            self._run(HOLD, customer, *(word for pair in calls[first : first + MAX_AT_ONCE] for word in pair))

    def take(self, customer: str, taken: Sequence[tuple[str, str, str]]) -> None:
        """See `core.limits.Tally.take`; names, calls and levels."""
        for first in range(0, len(taken), MAX_AT_ONCE):
            self._run(TAKE, customer, *(word for three in taken[first : first + MAX_AT_ONCE] for word in three))

    def slots(self, customer: str) -> int:
        """See `core.limits.Tally.slots`."""
        return int(self._run(COUNT, customer))

    def first_use(self, token: str, call: str, milliseconds: int) -> bool:
        """Whether a PASSporT came with no other call, and from now on with this one."""
        key = f"shaken:{self._log.fleet}:seen:{token}"
        with reaching(self._log.access):
            client: Any = self._log.client
            before = client.execute_command("SET", key, call, "NX", "GET", "PX", milliseconds, get=True)
        return before is None or before in {call, call.encode()}

    def _run(self, script: str, customer: str, *words: Any) -> Any:
        keys = _keys(self._log.fleet, customer)
        rest = [len(keys), *keys, LEASE, "" if self.at is None else self.at, *words]
        with reaching(self._log.access):
            client: Any = self._log.client
            try:
                return client.execute_command("EVALSHA", _digest(script), *rest)
            except exceptions.NoScriptError:
                return client.execute_command("EVAL", script, *rest)


@lru_cache(1_024)
def _keys(fleet: str, customer: str) -> tuple[bytes, ...]:
    """Octets, which the library sends as they are."""
    return tuple(f"shaken:{fleet}:{{{customer}}}:{name}".encode() for name in _NAMES)


@cache
def _digest(script: str) -> str:
    return sha1(script.encode(), usedforsecurity=False).hexdigest()

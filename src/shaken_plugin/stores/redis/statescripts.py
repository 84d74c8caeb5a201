"""What happens at once or not at all to a fleet's state in Redis (`state.StateStream`)."""

from __future__ import annotations

from typing import Final

FOUND: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 'other' end
local score = redis.call('ZSCORE', KEYS[3], ARGV[2])
if not score or tonumber(score) <= tonumber(redis.call('TIME')[1]) then return 'late' end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'fleet', ARGV[1], 'position', 0, 'last', '', 'snapshot', 0, 'snapshot_last', '',
           'pieces', ARGV[2], 'count', ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[2])
return 'done'
"""
"""A fleet's state begins. Gives 'done', 'other' where it has, 'late' where the pieces are waste by now.

ARGV: id, name of the pieces, how many.
"""

PUBLISH: Final = """
if redis.call('HGET', KEYS[1], 'fleet') ~= ARGV[1] then return 0 end
local position = redis.call('HINCRBY', KEYS[1], 'position', 1)
redis.call('XADD', KEYS[2], position .. '-0', 's', ARGV[2], 'n', ARGV[3], 'u', ARGV[4], 'b', ARGV[5])
redis.call('HSET', KEYS[1], 'last', ARGV[4])
return position
"""
"""One more act: its position, or 0 where it is another fleet by now. ARGV: id, source, its number there, uid, body."""

REPLACE: Final = """
local now = redis.call('HMGET', KEYS[1], 'fleet', 'snapshot', 'pieces', 'count')
if now[1] ~= ARGV[1] or tonumber(now[2]) >= tonumber(ARGV[2]) then return {'other'} end
local at = redis.call('TIME')[1]
local score = redis.call('ZSCORE', KEYS[3], ARGV[4])
if not score or tonumber(score) <= tonumber(at) then return {'late'} end
redis.call('ZADD', KEYS[3], at, now[3])
redis.call('HSET', KEYS[1], 'snapshot', ARGV[2], 'snapshot_last', ARGV[3], 'pieces', ARGV[4], 'count', ARGV[5])
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[6] .. '-0')
redis.call('ZREM', KEYS[3], ARGV[4])
return {'done', now[3], now[4]}
"""
"""A newer snapshot: {'done', name and count of the one before}; or 'other', 'late' as above.

ARGV: id, position, uid, name, count, first entry that stays.
"""

CLAIM: Final = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return false end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'NX', 'EX', ARGV[4])
return redis.call('GET', KEYS[2])
"""
"""What a host is to send as a message, false where another has it.

ARGV: source, seconds, body, seconds for which that stays.
"""

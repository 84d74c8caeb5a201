"""What happens in Redis at once or not at all. Each script touches keys of one slot only."""

from __future__ import annotations

from typing import Final

FOUND: Final = """
local meta, head, log, staged, chunked, material = unpack(KEYS)
local found = redis.call('HGET', meta, 'id')
if (found or '') ~= ARGV[1] then return found or '' end
if ARGV[9] ~= '' and table.concat(redis.call('HMGET', head, 'version', 'txid'), ' ') ~= ARGV[9] then return found end
if ARGV[8] ~= '' then
    local score = redis.call('ZSCORE', staged, ARGV[8])
    if not score or tonumber(score) <= tonumber(redis.call('TIME')[1]) then return 0 end
end
local later, before = redis.call('TIME')[1] + ARGV[10], redis.call('HGET', meta, 'snapshot_txid')
if before then redis.call('ZADD', staged, later, before) end
for _, txid in ipairs(redis.call('ZRANGE', chunked, 0, -1)) do redis.call('ZADD', staged, later, txid) end
redis.call('HSET', meta, 'id', ARGV[2], 'schema', ARGV[3], 'reads', ARGV[4], 'snapshot', ARGV[5], 'waiting', 0)
redis.call('HDEL', meta, 'snapshot_txid')
if ARGV[8] ~= '' then redis.call('HSET', meta, 'snapshot_txid', ARGV[8]) end
redis.call('HSET', head, 'version', ARGV[6], 'txid', ARGV[7])
redis.call('DEL', log, chunked, material)
for index = 11, #ARGV - 1, 2 do redis.call('HSET', material, ARGV[index], ARGV[index + 1]) end
redis.call('ZREM', staged, ARGV[8])
return false
"""
"""A fleet begins, or begins anew in the place of one whose id is named. Gives the id of one that is in the way,
or 0 where the snapshot's chunks are waste by now.

ARGV: id in the way or '', new id, schema, reads, snapshot, version, txid, the snapshot's txid or '', version and txid
that the one in the way must still be at or '', seconds for which readers still find what goes, material as pairs.
"""

LOOK: Final = """
local meta = redis.call('HMGET', KEYS[1], 'id', 'schema', 'reads', 'snapshot', 'waiting')
local head = redis.call('HMGET', KEYS[2], 'version', 'txid')
return {meta[1], meta[2], meta[3], meta[4], meta[5], head[1], head[2]}
"""
"""Who a fleet is, and how far it is."""

STAGE: Final = """
local now = redis.call('TIME')[1]
if ARGV[3] == 'again' then
    local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
    if not score or tonumber(score) <= tonumber(now) then return 0 end
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return 1
"""
"""Chunks are being uploaded under a txid: they are nobody's waste for some seconds. Gives 0 where they are by now.

ARGV: txid, seconds, first or again.
"""

COMMIT: Final = """
local meta, head, log, staged, chunked, material = unpack(KEYS)
local there = redis.call('XRANGE', log, ARGV[4], ARGV[4])[1]
if there then return there[2][2] == ARGV[5] and 'done' or 'moved' end
if redis.call('HGET', meta, 'id') ~= ARGV[1] then return 'other' end
local now = redis.call('HMGET', head, 'version', 'txid')
if now[1] ~= ARGV[2] or now[2] ~= ARGV[3] then return 'moved' end
local score = redis.call('ZSCORE', staged, ARGV[5])
if not score or tonumber(score) <= tonumber(redis.call('TIME')[1]) then return 'late' end
redis.call('XADD', log, ARGV[4], 'txid', ARGV[5], 'head', ARGV[6], 'data', ARGV[7])
redis.call('HSET', head, 'version', ARGV[8], 'txid', ARGV[5])
redis.call('ZREM', staged, ARGV[5])
if tonumber(ARGV[9]) > 0 then redis.call('ZADD', chunked, ARGV[8], ARGV[5]) end
redis.call('HINCRBY', meta, 'waiting', ARGV[10])
for index = 11, #ARGV - 2, 3 do
    if ARGV[index] == 'set' then redis.call('HSET', material, ARGV[index + 1], ARGV[index + 2])
    else redis.call('HDEL', material, ARGV[index + 1]) end
end
return 'done'
"""
"""The commit marker: one more version, or nothing. Asked again it gives the same answer.

The entry is the first that is written, so where there is no memory for it nothing is changed.
ARGV: fleet's id, version and txid before, entry's id, txid, header, inline operations, version after, chunks,
octets, material as triples (set or drop, name, content).
"""

SETTLE: Final = """
local there = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if there and there[2][2] == ARGV[2] then return 1 end
redis.call('ZREM', KEYS[2], ARGV[2])
return 0
"""
"""Whether a commit without an answer was done; where not, it never will be, however late it arrives.

ARGV: entry's id, txid.
"""

RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""A lock is still needed. ARGV: what it holds, milliseconds."""

RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
"""A lock is no longer needed, unless it is somebody else's by now. ARGV: what it holds."""

SWAP: Final = """
local meta, head, log, staged, chunked = unpack(KEYS)
local now = redis.call('HMGET', meta, 'id', 'snapshot', 'snapshot_txid')
if now[1] ~= ARGV[1] then return 'other' end
local score = redis.call('ZSCORE', staged, ARGV[5])
if not score or tonumber(score) <= tonumber(redis.call('TIME')[1]) then return 'late' end
local there = redis.call('XRANGE', log, ARGV[2], ARGV[2])[1]
if there and there[2][2] ~= ARGV[3] then return 'moved' end
if not there and redis.call('HGET', head, 'txid') ~= ARGV[3] then return 'moved' end
local later = redis.call('TIME')[1] + ARGV[8]
if now[3] then redis.call('ZADD', staged, later, now[3]) end
redis.call('HSET', meta, 'snapshot', ARGV[4], 'snapshot_txid', ARGV[5], 'waiting', 0)
redis.call('ZREM', staged, ARGV[5])
for _, txid in ipairs(redis.call('ZRANGEBYSCORE', chunked, '-inf', '(' .. ARGV[7])) do
    redis.call('ZADD', staged, later, txid)
    redis.call('ZREM', chunked, txid)
end
redis.call('XTRIM', log, 'MINID', ARGV[6])
return 'done'
"""
"""A new snapshot takes the place of the one before, and the log behind it is cut off.

ARGV: fleet's id, entry's id and txid of the version, snapshot, its chunks' txid, first entry's id and version that
stay, seconds for which readers still find what goes.
"""

WASTE: Final = """
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', redis.call('TIME')[1], 'LIMIT', 0, ARGV[1])
"""
"""The txids whose chunks nobody needs any more. ARGV: how many at most."""

AFTER: Final = """
local most, found, sum = tonumber(ARGV[3]), {}, 0
for index, row in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
    local size = 0
    for _, word in ipairs(row[2]) do size = size + #word end
    sum = sum + size
    if sum > most and index > 2 then break end
    found[index] = size > most and {row[1], {}} or row
end
return found
"""
"""Entries of a stream from one on, fewer where they are long; one that is too long has no content.

ARGV: its id, how many at most, octets of all and of each at most.
"""

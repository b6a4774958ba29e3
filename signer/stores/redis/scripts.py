"""The scripts that Redis runs, each in one step, in Lua.

A script that only reads deliberately lacks the flag `no-writes`. So a server that became a replica, and lags,
refuses it, and so does a master without the replicas that it must have (min-replicas-to-write). Every number
stays below 2^53, because Lua has only doubles; marks are compared as text.
"""

from hashlib import sha1
from typing import Final

from ...policy import LOG_SIZE

#: The common tag keeps all keys on one node of a cluster.
STATE, LOG, BUCKETS, GROUPS, AGES, ROWS, CHANNEL = (
    "{signer}:" + name for name in ("state", "log", "buckets", "groups", "ages", "rows:", "changes")
)
#: Seconds of expiry that share a key.
BUCKET: Final = 3600
#: Seconds from the end of a bucket until the engine itself deletes it.
KEEP: Final = 24 * 60 * 60
VERSION: Final = 2


class Script:
    """A script and its digest. A script that `changes` the list is never sent twice."""

    def __init__(self, *parts: str, flags: str = "", changes: bool = False) -> None:
        self.text = "\n".join((f"#!lua {flags}".rstrip(), *parts))
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.changes = changes


# KEYS: state, log, buckets, groups, ages, and the script's own. ARGV: the newest moment that was seen (the
# list's id, number, mark, and 1 if a list was found since that never was at it), the mark of the new change,
# and the script's own.
#
# The state counts groups and buckets, because nothing else shows that their key was deleted or evicted.
#
# The engine may have deleted a bucket, by its own clock, which may be wrong, or to make room. Then the key is
# gone while `buckets` still names it; only a purge removes the name. In that case the horizon is raised to
# the end of the bucket, before anything is written into the bucket again. No clock is read, so none can be
# wrong.
_HEAD: Final = f"""
local state = redis.call('HMGET', KEYS[1],
    'id', 'changes', 'mark', 'horizon', 'generation', 'version', 'groups', 'buckets')
if not state[1] then return {{'GONE'}} end
if state[6] ~= '{VERSION}' then return {{'VERSION'}} end
local changes, mark = tonumber(state[2]), state[3]
local horizon, generation = tonumber(state[4]), tonumber(state[5])
local groups, buckets = tonumber(state[7]), tonumber(state[8])
if not (changes and mark and horizon and generation and groups and buckets) then return {{'DAMAGED'}} end
if ARGV[1] ~= '' then
    local seen = tonumber(ARGV[2])
    if ARGV[1] ~= state[1] then return {{'REPLACED'}} end
    if changes < seen or (changes == seen and mark ~= ARGV[3]) then return {{'OLDER'}} end
    if changes > seen then
        local entry = redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2])[1]
        if entry and entry[2][2] ~= ARGV[3] then return {{'OLDER'}} end
        if not entry and (ARGV[4] == '1' or changes - seen < {LOG_SIZE}) then return {{'OLDER'}} end
    end
end
if redis.call('ZCARD', KEYS[3]) ~= buckets or redis.call('HLEN', KEYS[4]) ~= groups
or redis.call('ZCARD', KEYS[5]) ~= groups then return {{'LOST'}} end
local function number(value) return string.format('%.0f', value) end
local function count()
    redis.call('HSET', KEYS[1],
        'groups', redis.call('HLEN', KEYS[4]), 'buckets', redis.call('ZCARD', KEYS[3]))
end
local function mind(key)
    local bucket = string.match(key, '%d+$')
    if redis.call('EXISTS', key) == 0 and redis.call('ZSCORE', KEYS[3], bucket) then
        horizon = math.max(horizon, (tonumber(bucket) + 1) * {BUCKET})
        redis.call('HSET', KEYS[1], 'horizon', number(horizon))
    end
end
local function row(key, field)
    local value = redis.call('HGET', key, field)
    if not value then
        mind(key)
        return 0, 0, 0
    end
    local revoked, uses, rotated = string.match(value, '^([01]) (%d+) (%d+)$')
    if not revoked then error('a row is damaged') end
    return tonumber(revoked), tonumber(uses), tonumber(rotated)
end
local function group(value)
    local generation, expires = string.match(value or '0 0', '^(%d+) (%d+)$')
    if not generation then error('a group is damaged') end
    return tonumber(generation), tonumber(expires)
end
"""
_CHANGE: Final = f"""
local function changed(name, generation)
    changes, mark = changes + 1, ARGV[5]
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', {LOG_SIZE}, number(changes) .. '-0',
        'mark', mark, 'name', name, 'generation', number(generation))
    redis.call('HSET', KEYS[1], 'changes', number(changes), 'mark', mark)
    redis.call('PUBLISH', '{CHANNEL}', number(changes))
end
local function put(key, field, revoked, uses, rotated)
    local is_new = redis.call('EXISTS', key) == 0
    changed(field, 0)
    redis.call('HSET', key, field, number(revoked) .. ' ' .. number(uses) .. ' ' .. number(rotated))
    if is_new then
        local bucket = string.match(key, '%d+$')
        local ending = (tonumber(bucket) + 1) * {BUCKET} + {KEEP}
        redis.call('ZADD', KEYS[3], bucket, bucket)
        count()
        if ending > tonumber(redis.call('TIME')[1]) then redis.call('EXPIREAT', key, number(ending)) end
    end
end
"""


def _reading(*parts: str) -> Script:
    return Script(_HEAD, *parts, flags="flags=allow-oom")


def _changing(*parts: str, flags: str = "") -> Script:
    return Script(_HEAD, _CHANGE, *parts, flags=flags, changes=True)


#: Make the state if there is nothing; 1 if it was made. KEYS: all but rows. ARGV: the new id and mark.
CREATE: Final = Script(
    f"""
if redis.call('EXISTS', KEYS[1]) == 1 then return {{'', 0}} end
for place = 2, #KEYS do
    if redis.call('EXISTS', KEYS[place]) == 1 then return {{'PARTS'}} end
end
redis.call('XADD', KEYS[2], '1-0', 'mark', ARGV[2], 'name', '', 'generation', '0')
redis.call('HSET', KEYS[1], 'version', {VERSION}, 'id', ARGV[1], 'changes', 1, 'mark', ARGV[2],
    'horizon', 0, 'generation', 0, 'groups', 0, 'buckets', 0)
return {{'', 1}}
""",
    changes=True,
)
#: Count, once, what a list of version 1 holds. Its log shows that it is complete: every change that has not
#: expired must be there. KEYS: as CREATE.
UPGRADE: Final = Script(
    f"""
local state = redis.call('HMGET', KEYS[1], 'version', 'horizon')
if state[1] ~= '1' then return {{''}} end
local horizon, newest = tonumber(state[2]), '+'
local groups = redis.call('HLEN', KEYS[4])
if redis.call('ZCARD', KEYS[5]) ~= groups then return {{'LOST'}} end
repeat
    local lines = redis.call('XREVRANGE', KEYS[2], newest, '-', 'COUNT', 1000)
    for _, line in ipairs(lines) do
        local name, generation = line[2][4], tonumber(line[2][6])
        local expires = tonumber(string.match(name, '^%d*')) or 0
        if generation > 0 then
            if generation / 1000 >= horizon and redis.call('HEXISTS', KEYS[4], name) == 0 then
                return {{'LOST'}}
            end
        elseif name ~= '' and expires >= horizon
        and not redis.call('ZSCORE', KEYS[3], string.format('%.0f', math.floor(expires / {BUCKET}))) then
            return {{'LOST'}}
        end
        newest = '(' .. line[1]
    end
until #lines == 0
redis.call('HSET', KEYS[1], 'version', {VERSION}, 'groups', groups, 'buckets', redis.call('ZCARD', KEYS[3]))
return {{''}}
""",
    changes=True,
)
BEGIN: Final = _reading("return {'', changes, mark, state[1], changes, mark, horizon, generation}")
#: The numbers of all buckets.
LIST: Final = _reading("return {'', changes, mark, redis.call('ZRANGE', KEYS[3], 0, -1)}")
#: The number of fields. KEYS: hashes.
COUNT: Final = _reading("""
local total = 0
for place = 6, #KEYS do total = total + redis.call('HLEN', KEYS[place]) end
return {'', changes, mark, total}
""")
#: KEYS: bucket. ARGV: field, group names.
LOOKUP: Final = _reading("""
local revoked, uses, rotated = row(KEYS[6], ARGV[6])
local highest = 0
for place = 7, #ARGV do
    highest = math.max(highest, (group(redis.call('HGET', KEYS[4], ARGV[place]))))
end
return {'', changes, mark, revoked, uses, rotated, highest, horizon, generation}
""")
#: KEYS: bucket. ARGV: field, exp, group names.
REVOKE: Final = _changing("""
local revoked, uses, rotated = row(KEYS[6], ARGV[6])
local highest = 0
for place = 8, #ARGV do
    highest = math.max(highest, (group(redis.call('HGET', KEYS[4], ARGV[place]))))
end
if tonumber(ARGV[7]) >= horizon then
    revoked = 1
    put(KEYS[6], ARGV[6], revoked, uses, rotated)
end
return {'', changes, mark, revoked, uses, rotated, highest, horizon, generation}
""")
#: KEYS: bucket. ARGV: field, exp, limit.
USE: Final = _changing("""
local revoked, uses, rotated = row(KEYS[6], ARGV[6])
if revoked == 1 or rotated > 0 or uses >= tonumber(ARGV[8]) or tonumber(ARGV[7]) < horizon then
    return {'', changes, mark, false}
end
put(KEYS[6], ARGV[6], 0, uses + 1, 0)
return {'', changes, mark, uses + 1}
""")
#: KEYS: bucket. ARGV: field, exp, now.
ROTATE: Final = _changing("""
local revoked, uses, rotated = row(KEYS[6], ARGV[6])
if revoked == 1 or uses > 0 or tonumber(ARGV[7]) < horizon then return {'', changes, mark, false} end
if rotated == 0 then rotated = tonumber(ARGV[8]) end
put(KEYS[6], ARGV[6], 0, 0, rotated)
return {'', changes, mark, rotated}
""")
#: ARGV: group, now_ms, lifetime.
ADVANCE: Final = _changing("""
local _, expires = group(redis.call('HGET', KEYS[4], ARGV[6]))
generation = math.max(tonumber(ARGV[7]), generation + 1)
expires = math.max(expires, math.max(math.floor(generation / 1000), horizon) + tonumber(ARGV[8]))
changed(ARGV[6], generation)
redis.call('HSET', KEYS[1], 'generation', number(generation))
redis.call('HSET', KEYS[4], ARGV[6], number(generation) .. ' ' .. number(expires))
redis.call('ZADD', KEYS[5], number(expires), ARGV[6])
count()
return {'', changes, mark, generation}
""")
PING: Final = _changing("""
changed('', 0)
return {'', changes, mark}
""")
#: Raise the horizon; return the buckets from which rows may be deleted then. ARGV: before.
PURGE: Final = _changing(
    f"""
horizon = math.max(horizon, tonumber(ARGV[6]))
redis.call('HSET', KEYS[1], 'horizon', number(horizon))
changed('', 0)
local bound = string.format('(%.17g', tonumber(ARGV[6]) / {BUCKET})
return {{'', changes, mark, redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', bound)}}
""",
    flags="flags=allow-oom",
)
#: Where to continue, and how many rows it deleted. KEYS: bucket. ARGV: before, limit, cursor.
PURGE_ROWS: Final = _reading("""
mind(KEYS[6])
local before, deleted = math.min(tonumber(ARGV[6]), horizon), 0
local found = redis.call('HSCAN', KEYS[6], ARGV[8], 'COUNT', ARGV[7])
for place = 1, #found[2], 2 do
    local field = found[2][place]
    if deleted < tonumber(ARGV[7]) and tonumber(string.match(field, '^%d+')) < before then
        deleted = deleted + redis.call('HDEL', KEYS[6], field)
    end
end
if redis.call('EXISTS', KEYS[6]) == 0 then redis.call('ZREM', KEYS[3], string.match(KEYS[6], '%d+$')) end
count()
return {'', changes, mark, found[1], deleted}
""")
#: How many groups it deleted. ARGV: before, limit.
PURGE_GROUPS: Final = _reading("""
local bound = '(' .. number(math.min(tonumber(ARGV[6]), horizon))
local names = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', bound, 'LIMIT', 0, ARGV[7])
for _, name in ipairs(names) do
    redis.call('HDEL', KEYS[4], name)
    redis.call('ZREM', KEYS[5], name)
end
count()
return {'', changes, mark, #names}
""")
#: The horizon, the server's run, how many of the hashes are done, the cursor in the next one, fields and
#: values. KEYS: hashes. ARGV: limit, and the run and cursor for the first hash. After a restart the server
#: hashes in another way, so that an old cursor would leave rows out: the hash is read from the beginning
#: then.
PAGE: Final = _reading("""
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local place, limit, cursor, rows = 6, tonumber(ARGV[6]), ARGV[8], {}
if not run then error('INFO server has no run_id') end
if run ~= ARGV[7] then cursor = '0' end
while place <= #KEYS and #rows < 2 * limit do
    if string.find(KEYS[place], '%d$') then mind(KEYS[place]) end
    local found = redis.call('HSCAN', KEYS[place], cursor, 'COUNT', limit - #rows / 2)
    for _, value in ipairs(found[2]) do rows[#rows + 1] = value end
    cursor = found[1]
    if cursor == '0' then place = place + 1 end
end
return {'', changes, mark, horizon, run, place - 6, cursor, rows}
""")
#: Entries after that moment; nothing if it is not in the log. ARGV: number, mark, limit.
CHANGES: Final = _reading("""
local entry = redis.call('XRANGE', KEYS[2], ARGV[6], ARGV[6])[1]
if not entry or entry[2][2] ~= ARGV[7] then return {'', changes, mark, false} end
return {'', changes, mark, redis.call('XRANGE', KEYS[2], '(' .. ARGV[6], '+', 'COUNT', ARGV[8])}
""")
#: The horizon, and values. KEYS: hashes. ARGV: pairs of a hash's place and a field.
READ: Final = _reading("""
local values = {}
for place = 6, #ARGV, 2 do
    local key = KEYS[6 + tonumber(ARGV[place])]
    values[#values + 1] = redis.call('HGET', key, ARGV[place + 1])
    if not values[#values] and string.find(key, '%d$') then mind(key) end
end
return {'', changes, mark, horizon, values}
""")

/*
 * Functions that the scripts of the queue share. KEYS[1] is the stream, KEYS[2] the hash of producers; see redis-queue-keys.ts.
 *
 * Redis may lose any of the keys by itself: evicted, flushed, deleted by hand. So nothing is believed to wait in the stream
 * because another key says so: the entry itself is looked at.
 */

/** Numbers as Redis is to see them: Lua by itself would write large ones with an exponent. And the parts of a run's leaves. */
export const LEAVES = `
local function whole(number) return string.format('%.0f', number) end
-- Where the leaf after so many others begins, its length included.
local function leafStart(leaves, skip, at)
  at = at or 1
  for _ = 1, skip do
    local a, b, c, d = string.byte(leaves, at, at + 3)
    if not d then return nil end
    at = at + 4 + ((a * 256 + b) * 256 + c) * 256 + d
  end
  return at
end
`;

/** The run of this producer in the entry `id` that begins with this sequence; and the run in which a record waits. */
export const RUN_AT = `
local function runAt(id, producer, first)
  local fields = (redis.call('XRANGE', KEYS[1], id, id)[1] or {})[2]
  if fields and #fields == 8 and fields[1] == 'producer' and fields[2] == producer and fields[3] == 'first'
    and fields[4] == first and fields[5] == 'last' and fields[7] == 'leaves' then
    return {first = tonumber(first), last = tonumber(fields[6]), leaves = fields[8]}
  end
end
local function runWith(tail, producer, sequence)
  local member = redis.call('ZRANGEBYSCORE', tail, sequence, '+inf', 'LIMIT', 0, 1)[1]
  if not member then return nil end
  local id, first = string.match(member, '^(%S+) (%d+)$')
  if not id or tonumber(first) > tonumber(sequence) then return nil end
  return runAt(id, producer, first)
end
`;

/**
 * Whether the tail of a producer tells of all its records that wait. It does not when the tail was lost since it was begun, nor
 * when the hash of producers was, so that nobody knows whether there was a tail.
 */
export const IS_WHOLE = `
local function isWhole(tail, producer)
  local known = redis.call('HMGET', KEYS[2], '/', producer .. '/')
  if not known[1] then return redis.call('XLEN', KEYS[1]) == 0 end
  return known[2] ~= known[1] or redis.call('ZSCORE', tail, '/' .. known[1])
end
`;

/** The last entry that the group was given; nil when there is no such group. And the order of entries. */
export const DELIVERED = `
local function delivered(group)
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local about = {}
    for i = 1, #info, 2 do about[info[i]] = info[i + 1] end
    if about.name == group then return about['last-delivered-id'] end
  end
end
local function before(a, b)
  local ams, an = string.match(a, '(%d+)-(%d+)')
  local bms, bn = string.match(b, '(%d+)-(%d+)')
  ams, an, bms, bn = tonumber(ams), tonumber(an), tonumber(bms), tonumber(bn)
  return ams < bms or (ams == bms and an < bn)
end
local function lastEntry()
  return (redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1] or {})[1]
end
-- Whether the group was given all there is, and has finished with it.
local function isDone(group)
  local last = lastEntry()
  if not last then return true end
  local position = delivered(group)
  return position and not before(position, last) and redis.call('XPENDING', KEYS[1], group)[1] == 0
end
`;

/** The first entry that nobody has finished with. Those that are not ours stay in the stream when they are done with. */
export const FIRST_WAITING = `${DELIVERED}
local function firstWaiting(group)
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not first then return nil end
  if redis.call('HGET', KEYS[2], '/foreign') == '0' then return first[1] end
  local position = delivered(group)
  if not position then return first[1] end
  local pending = redis.call('XPENDING', KEYS[1], group, '-', '+', 1)[1]
  local fresh = redis.call('XRANGE', KEYS[1], '(' .. position, '+', 'COUNT', 1)[1]
  if pending and fresh and before(fresh[1], pending[1]) then return fresh[1] end
  return (pending or fresh or {})[1]
end
`;

/**
 * How many records wait, as counted; and, should the count be lost, one at least for each entry that may be ours. Entries that are
 * not ours may be deleted by others, so that more of them are counted than there are: that hides no record of ours.
 */
export const WAITING = `
local function waiting(counted, foreign)
  local length = redis.call('XLEN', KEYS[1])
  if length == 0 then return 0, 0 end
  counted = tonumber(counted or 0)
  return math.max(length - tonumber(foreign or 0), counted), counted
end
local function countGone(gone)
  local counted = gone > 0 and redis.call('HGET', KEYS[2], '/records')
  if counted then redis.call('HSET', KEYS[2], '/records', math.max(0, tonumber(counted) - gone)) end
end
`;

/**
 * The era ends when Redis loses the stream or the hash of producers, and with them records that were acknowledged. Empty: nothing
 * was queued since.
 */
export const ERA = `
local function era()
  if redis.call('EXISTS', KEYS[1]) == 0 then return '' end
  return redis.call('HGET', KEYS[2], '/era') or ''
end
`;

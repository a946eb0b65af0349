/*
 * Functions that the scripts of the queue share. KEYS[1] is the stream, KEYS[2] the hash of producers; see redis-queue-keys.ts.
 *
 * Redis may lose any of the keys by itself: evicted, flushed, deleted by hand. So nothing is believed to wait in the stream
 * because another key says so: the entry itself is looked at.
 */

/** The leaf of the entry `id`, if it is the record of this identity. */
export const RECORD_AT = `
local function recordAt(id, producer, sequence)
  local fields = (redis.call('XRANGE', KEYS[1], id, id)[1] or {})[2]
  if fields and #fields == 6 and fields[2] == producer and fields[4] == sequence then return fields[6] end
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
  return known[2] ~= known[1] or redis.call('HGET', tail, '/') == known[1]
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
 * The era ends when Redis loses the stream or the hash of producers, and with them records that were acknowledged. Empty: nothing
 * was queued since.
 */
export const ERA = `
local function era()
  if redis.call('EXISTS', KEYS[1]) == 0 then return '' end
  return redis.call('HGET', KEYS[2], '/era') or ''
end
`;

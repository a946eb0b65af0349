import { defineScript } from "../../infra/redis.ts";
import { DELIVERED, RUN_AT, WAITING } from "./redis-queue-lua.ts";

/**
 * Makes the group where it is missing, to read the stream from its beginning. Reading begins anew, too, when all was read but
 * what is left is not as many as the entries that are not ours: their number was lost, or something is left that nobody reads.
 *
 * KEYS  stream, producers   ARGV  1 group
 */
export const openScript = defineScript({
  name: "audit-open",
  keys: 2,
  lua: `${DELIVERED}
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if not made.err then
  -- The stream may have been lost, and just been made again.
  redis.call('HDEL', KEYS[2], '/era')
else
  if not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
  local left = tonumber(redis.call('HGET', KEYS[2], '/foreign') or 0)
  if redis.call('XLEN', KEYS[1]) == left or not isDone(ARGV[1]) then return 0 end
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], '0')
end
redis.call('HSET', KEYS[2], '/foreign', '0')
return 1
`,
});

/**
 * Takes archived records out of the queue; acknowledges entries that are not ours, and leaves them.
 *
 * KEYS  stream, producers, tails of the producers below
 * ARGV  1 group   2 a generation nobody has used   3 how many entries are not ours, and then they
 *       .. for each producer: name; its entries, their first and their last sequence, one after the other with spaces between
 * Result: how many records wait still.
 */
export const finishScript = defineScript({
  name: "audit-finish",
  lua: `${RUN_AT}${DELIVERED}${WAITING}
local stream, producers, group = KEYS[1], KEYS[2], ARGV[1]
local function each(list, run)
  for from = 1, #list, 4000 do run(unpack(list, from, math.min(from + 3999, #list))) end
end
local foreign, foreigners = tonumber(ARGV[3]), 0
local at = 4 + foreign
if foreign > 0 then
  local others = {}
  for i = 1, foreign do others[i] = ARGV[3 + i] end
  each(others, function(...) foreigners = foreigners + redis.call('XACK', stream, group, ...) end)
  -- Acknowledged by someone else before: counted by that one.
  if foreigners > 0 then redis.call('HINCRBY', producers, '/foreign', foreigners) end
end
local gone = 0
for p = 3, #KEYS do
  local tail, name = KEYS[p], ARGV[at]
  local entries, runs = {}, {}
  for id, first, last in string.gmatch(ARGV[at + 1], '(%S+) (%d+) (%d+)') do
    entries[#entries + 1] = id
    runs[#runs + 1] = {id, first, tonumber(last)}
  end
  at = at + 2
  local known = 0
  each(entries, function(...) known = known + redis.call('XACK', stream, group, ...) end)
  local members = {}
  for _, run in ipairs(runs) do
    local id, first, last = unpack(run)
    local isThere = true
    if known < #entries then
      -- Redis has lost the stream, or others have finished with them. A new stream may have the same ids for other records.
      local there = runAt(id, name, first)
      isThere = there and there.last == last
    end
    if isThere then
      if redis.call('XDEL', stream, id) == 1 then gone = gone + last - tonumber(first) + 1 end
      members[#members + 1] = id .. ' ' .. first
    end
  end
  each(members, function(...) redis.call('ZREM', tail, ...) end)
  if redis.call('ZCARD', tail) == 1 and redis.call('ZREMRANGEBYSCORE', tail, 0, 0) == 1 then
    redis.call('HDEL', producers, name .. '/')
  end
end
countGone(gone)
local counts = redis.call('HMGET', producers, '/records', '/foreign')
if tonumber(counts[1] or 0) > 0 and redis.call('XLEN', stream) <= tonumber(counts[2] or 0) and isDone(group) then
  -- What is counted still was deleted by others: nobody waits for it.
  redis.call('HSET', producers, '/records', '0')
  counts[1] = '0'
end
-- The index was lost. It tells the truth again as soon as no record of ours waits.
if redis.call('HEXISTS', producers, '/') == 0 and isDone(group) then redis.call('HSET', producers, '/', ARGV[2]) end
return (waiting(unpack(counts)))
`,
});

/**
 * Moves an entry that cannot be read where it is out of the way. It is acknowledged first: then Redis lets the copy be made even
 * when it is out of memory.
 *
 * KEYS  stream, producers, quarantine   ARGV  1 group   2 entry   3 how many records it is
 * Result: how many records wait still.
 */
export const quarantineScript = defineScript({
  name: "audit-quarantine",
  keys: 3,
  lua: `${WAITING}
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if entry then
  redis.call('XADD', KEYS[3], '*', 'entry', ARGV[2], unpack(entry[2]))
  redis.call('XDEL', KEYS[1], ARGV[2])
  countGone(tonumber(ARGV[3]))
end
return (waiting(unpack(redis.call('HMGET', KEYS[2], '/records', '/foreign'))))
`,
});

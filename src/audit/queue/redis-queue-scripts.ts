import { defineScript } from "../../infra/redis.ts";
import { ERA, FIRST_WAITING, IS_WHOLE, RECORD_AT } from "./redis-queue-lua.ts";

/* Lists are unpacked in pieces, because Lua's stack is small. */

/**
 * Appends records that are not in the queue, in order; all that have to be added, or none.
 *
 * KEYS  stream, producers, tails of the producers below
 * ARGV  1 how many may wait   2 "1" if whatever is not in the queue is to be added   3 a generation nobody has used
 *       4.. for each producer: name; seed ("": none; "-": no mark is kept of it)
 *       .. for each record: place of its producer, from 1; sequence; leaf
 * Result: a letter for each record: q(ueued) h(eld) l(ate) s(tranger), a space, the era; "full"; "memory" when Redis has none
 * left.
 */
export const appendScript = defineScript({
  name: "audit-append",
  lua: `${RECORD_AT}${ERA}
local stream, producers = KEYS[1], KEYS[2]
local now = era()
local many = #KEYS - 2
local first = 4 + 2 * many
local settled = ARGV[2] == '1'
local names = {'/', '/foreign'}
for i = 1, many do
  names[2 * i + 1] = ARGV[2 + 2 * i]
  names[2 * i + 2] = ARGV[2 + 2 * i] .. '/'
end
local known = {}
for from = 1, #names, 4000 do
  for i, value in ipairs(redis.call('HMGET', producers, unpack(names, from, math.min(from + 3999, #names)))) do
    known[from + i - 1] = value
  end
end
local generation = known[1]
local marks, raised, unmarked, added = {}, {}, {}, {}
for i = 1, many do
  local mark, seed = tonumber(known[2 * i + 1]), ARGV[3 + 2 * i]
  unmarked[i] = seed == '-'
  seed = tonumber(seed)
  if seed and not mark then
    -- The mark was lost: what waits of this producer counts as well as what is archived.
    for _, sequence in ipairs(redis.call('HKEYS', KEYS[2 + i])) do
      seed = math.max(seed, tonumber(sequence) or 0)
    end
  end
  if seed and (not mark or seed > mark) then
    mark, raised[i] = seed, true
  end
  marks[i], added[i] = mark, {}
end
local outcomes, count, wanted = {}, 0, 0
for at = first, #ARGV, 3 do
  local p, text = tonumber(ARGV[at]), ARGV[at + 1]
  local sequence, mark, outcome = tonumber(text), marks[p], 'q'
  if mark and sequence > mark then
    marks[p], raised[p] = sequence, true
  elseif added[p][text] then
    outcome = 'h'
  else
    local id = redis.call('HGET', KEYS[2 + p], text)
    if id and recordAt(id, ARGV[2 + 2 * p], text) then
      outcome = 'h'
    elseif not settled then
      outcome = (mark or unmarked[p]) and 'l' or 's'
    end
  end
  if outcome == 'q' then
    added[p][text] = true
    wanted = wanted + 1
  end
  count = count + 1
  outcomes[count] = outcome
end
if wanted > 0 then
  local length = redis.call('XLEN', stream)
  if math.max(0, length - tonumber(known[2] or 0)) + wanted > tonumber(ARGV[1]) then return 'full' end
  local fields = {}
  for r = 1, count do
    if outcomes[r] == 'q' then
      local at = first + 3 * (r - 1)
      local p, text = tonumber(ARGV[at]), ARGV[at + 1]
      local id = redis.pcall(
        'XADD', stream, '*', 'producer', ARGV[2 + 2 * p], 'sequence', text, 'leaf', ARGV[at + 2])
      if type(id) == 'table' then
        if string.find(id.err, 'OOM', 1, true) then return 'memory' end
        return id
      end
      local list = fields[p]
      if not list then
        list = {}
        fields[p] = list
      end
      list[#list + 1] = text
      list[#list + 1] = id
    end
  end
  local news = {}
  if length == 0 then
    generation = ARGV[3]
    news = {'/', generation, '/foreign', '0'}
  end
  if now == '' then
    now = ARGV[3]
    news[#news + 1] = '/era'
    news[#news + 1] = now
  end
  for p, list in pairs(fields) do
    local tail = KEYS[2 + p]
    if generation and redis.call('HGET', tail, '/') ~= generation then
      if length == 0 or known[2 * p + 2] ~= generation then
        -- What another generation left behind is gone from the stream. A tail lost in this one is never whole again.
        redis.call('DEL', tail)
        list[#list + 1] = '/'
        list[#list + 1] = generation
        news[#news + 1] = ARGV[2 + 2 * p] .. '/'
        news[#news + 1] = generation
      end
    end
    for from = 1, #list, 4000 do
      redis.call('HSET', tail, unpack(list, from, math.min(from + 3999, #list)))
    end
  end
  for p in pairs(raised) do
    news[#news + 1] = ARGV[2 + 2 * p]
    news[#news + 1] = string.format('%.0f', marks[p])
  end
  for from = 1, #news, 4000 do
    redis.call('HSET', producers, unpack(news, from, math.min(from + 3999, #news)))
  end
else
  for p in pairs(raised) do redis.call('HSET', producers, ARGV[2 + 2 * p], string.format('%.0f', marks[p])) end
end
return table.concat(outcomes) .. ' ' .. now
`,
});

/**
 * KEYS  stream, producers, tails of the producers below
 * ARGV  for each record wanted: place of its tail, from 1; producer; sequence
 * Result: for each the leaf; null when it does not wait; 1 when only the stream itself can tell.
 */
export const findScript = defineScript({
  name: "audit-find",
  buffers: true,
  lua: `${RECORD_AT}${IS_WHOLE}
local found = {}
for at = 1, #ARGV, 3 do
  local tail, producer, sequence = KEYS[2 + tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
  local id = redis.call('HGET', tail, sequence)
  local leaf = id and recordAt(id, producer, sequence)
  found[#found + 1] = leaf or (not isWhole(tail, producer) and 1)
end
return found
`,
});

/**
 * A part of the sequences that wait of a producer.
 *
 * KEYS  stream, producers, its tail   ARGV  1 producer   2 cursor, first "0"
 * Result: the next cursor ("0": that was all), then the sequences; null when only the stream itself can tell.
 */
export const sequencesScript = defineScript({
  name: "audit-sequences",
  keys: 3,
  lua: `${RECORD_AT}${IS_WHOLE}
if not isWhole(KEYS[3], ARGV[1]) then return nil end
local part = redis.call('HSCAN', KEYS[3], ARGV[2], 'COUNT', 500)
local answer = {part[1]}
for i = 1, #part[2], 2 do
  local sequence, id = part[2][i], part[2][i + 1]
  if sequence ~= '/' and recordAt(id, ARGV[1], sequence) then answer[#answer + 1] = sequence end
end
return answer
`,
});

/**
 * KEYS  stream, producers   ARGV  1 group
 * Result: the era; and, if any waits, the first entry that waits, and the last of the stream.
 */
export const frontierScript = defineScript({
  name: "audit-frontier",
  keys: 2,
  lua: `${FIRST_WAITING}${ERA}
local first = firstWaiting(ARGV[1])
if not first then return {era()} end
return {era(), first, lastEntry()}
`,
});

/**
 * KEYS  stream, producers, quarantine   ARGV  1 group
 * Result: how many records wait; how many entries are not ours; how many are in quarantine; the era; the leaf of the first that
 * waits.
 */
export const conditionScript = defineScript({
  name: "audit-condition",
  keys: 3,
  buffers: true,
  lua: `${FIRST_WAITING}${ERA}
local foreign = tonumber(redis.call('HGET', KEYS[2], '/foreign') or 0)
local first, leaf = firstWaiting(ARGV[1]), false
for _, entry in ipairs(first and redis.call('XRANGE', KEYS[1], first, '+', 'COUNT', 20) or {}) do
  if not leaf and #entry[2] == 6 and entry[2][5] == 'leaf' then leaf = entry[2][6] end
end
local waiting = math.max(0, redis.call('XLEN', KEYS[1]) - foreign)
return {waiting, foreign, redis.call('XLEN', KEYS[3]), era(), leaf}
`,
});

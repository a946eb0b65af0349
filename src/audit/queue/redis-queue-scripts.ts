import { defineScript } from "../../infra/redis.ts";
import { ERA, FIRST_WAITING, IS_WHOLE, LEAVES, RUN_AT, WAITING } from "./redis-queue-lua.ts";

/* Lists are unpacked in pieces, because Lua's stack is small. */

/**
 * Appends records that are not in the queue, in order; all that have to be added, or none.
 *
 * KEYS  stream, producers, tails of the producers below
 * ARGV  1 how many may wait   2 "1" if whatever is not in the queue is to be added   3 a generation nobody has used
 *       4.. for each producer: name; seed ("": none; "-": no mark is kept of it)
 *       .. for each run of records: place of its producer, from 1; first sequence; last; leaves
 * Result: a letter for each record: q(ueued) h(eld) l(ate) s(tranger), a space, the era; "full"; "memory" when Redis has none
 * left.
 */
export const appendScript = defineScript({
  name: "audit-append",
  lua: `${LEAVES}${RUN_AT}${WAITING}${ERA}
local stream, producers = KEYS[1], KEYS[2]
local now = era()
local many = #KEYS - 2
local first = 4 + 2 * many
local settled = ARGV[2] == '1'
local names = {'/', '/foreign', '/records'}
for i = 1, many do
  names[2 * i + 2] = ARGV[2 + 2 * i]
  names[2 * i + 3] = ARGV[2 + 2 * i] .. '/'
end
local known = {}
for from = 1, #names, 4000 do
  for i, value in ipairs(redis.call('HMGET', producers, unpack(names, from, math.min(from + 3999, #names)))) do
    known[from + i - 1] = value
  end
end
local generation = known[1]
local marks, raised, unmarked = {}, {}, {}
for i = 1, many do
  local mark, seed = tonumber(known[2 * i + 2]), ARGV[3 + 2 * i]
  unmarked[i] = seed == '-'
  seed = tonumber(seed)
  if seed and not mark then
    -- The mark was lost: what waits of this producer counts as well as what is archived.
    local waits = redis.call('ZREVRANGE', KEYS[2 + i], 0, 0, 'WITHSCORES')[2]
    seed = math.max(seed, tonumber(waits or 0))
  end
  if seed and (not mark or seed > mark) then
    mark, raised[i] = seed, true
  end
  marks[i] = mark
end
local outcomes, pieces, wanted = {}, {}, 0
local function add(p, from, to, leaves)
  pieces[#pieces + 1] = {p, from, to, leaves}
  wanted = wanted + to - from + 1
end
for at = first, #ARGV, 4 do
  local p, from, to, leaves = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
  local mark = marks[p]
  if mark and from > mark then
    add(p, from, to, leaves)
    outcomes[#outcomes + 1] = string.rep('q', to - from + 1)
  else
    local begun, held
    local function addBegun(last)
      local start = leafStart(leaves, begun - from)
      add(p, begun, last, string.sub(leaves, start, leafStart(leaves, last - begun + 1, start) - 1))
      begun = nil
    end
    for sequence = from, to do
      local outcome = 'q'
      if not mark or sequence <= mark then
        if not (held and sequence <= held.last) then
          held = runWith(KEYS[2 + p], ARGV[2 + 2 * p], whole(sequence))
        end
        if held then
          outcome = 'h'
        elseif not settled then
          outcome = (mark or unmarked[p]) and 'l' or 's'
        end
      end
      if outcome == 'q' then
        begun = begun or sequence
      elseif begun then
        addBegun(sequence - 1)
      end
      outcomes[#outcomes + 1] = outcome
    end
    if begun then addBegun(to) end
  end
  if mark and to > mark then
    marks[p], raised[p] = to, true
  end
end
if wanted > 0 then
  local length = redis.call('XLEN', stream)
  local waits, counted = waiting(known[3], known[2])
  if waits + wanted > tonumber(ARGV[1]) then return 'full' end
  local fields = {}
  for _, piece in ipairs(pieces) do
    local p, from, to = piece[1], whole(piece[2]), whole(piece[3])
    local id = redis.pcall(
      'XADD', stream, '*', 'producer', ARGV[2 + 2 * p], 'first', from, 'last', to, 'leaves', piece[4])
    if type(id) == 'table' then
      if string.find(id.err, 'OOM', 1, true) then return 'memory' end
      return id
    end
    local list = fields[p]
    if not list then
      list = {}
      fields[p] = list
    end
    list[#list + 1] = {from, to, id .. ' ' .. from}
  end
  local news = {'/records', whole(counted + wanted)}
  if length == 0 then
    generation = ARGV[3]
    for _, value in ipairs({'/', generation, '/foreign', '0'}) do news[#news + 1] = value end
  end
  if now == '' then
    now = ARGV[3]
    news[#news + 1] = '/era'
    news[#news + 1] = now
  end
  for p, list in pairs(fields) do
    local tail = KEYS[2 + p]
    if generation and not redis.call('ZSCORE', tail, '/' .. generation) then
      if length == 0 or known[2 * p + 3] ~= generation then
        -- What another generation left behind is gone from the stream. A tail lost in this one is never whole again.
        redis.call('DEL', tail)
        redis.call('ZADD', tail, 0, '/' .. generation)
        news[#news + 1] = ARGV[2 + 2 * p] .. '/'
        news[#news + 1] = generation
      end
    end
    for _, run in ipairs(list) do
      -- Whatever says that one of these waits elsewhere is about an entry that is gone.
      redis.call('ZREMRANGEBYSCORE', tail, run[1], run[2])
      redis.call('ZADD', tail, run[2], run[3])
    end
  end
  for p in pairs(raised) do
    news[#news + 1] = ARGV[2 + 2 * p]
    news[#news + 1] = whole(marks[p])
  end
  for from = 1, #news, 4000 do
    redis.call('HSET', producers, unpack(news, from, math.min(from + 3999, #news)))
  end
else
  for p in pairs(raised) do redis.call('HSET', producers, ARGV[2 + 2 * p], whole(marks[p])) end
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
  lua: `${LEAVES}${RUN_AT}${IS_WHOLE}
local found, run, next, start = {}, nil, nil, nil
for at = 1, #ARGV, 3 do
  local tail, producer, sequence = KEYS[2 + tonumber(ARGV[at])], ARGV[at + 1], tonumber(ARGV[at + 2])
  -- They are mostly asked for in order: then the run is read once, and walked through once.
  if not run or run.producer ~= producer or sequence < next or sequence > run.last then
    run = runWith(tail, producer, ARGV[at + 2])
    if run then run.producer, next, start = producer, run.first, 1 end
  end
  local leaf
  if run then
    start = leafStart(run.leaves, sequence - next, start)
    local stop = start and leafStart(run.leaves, 1, start)
    leaf = stop and string.sub(run.leaves, start + 4, stop - 1)
    next, start = sequence + 1, stop
    if not stop then run = nil end
  end
  found[#found + 1] = leaf or (not isWhole(tail, producer) and 1)
end
return found
`,
});

/**
 * A part of the runs that wait of a producer.
 *
 * KEYS  stream, producers, its tail   ARGV  1 producer   2 the sequence after which to begin, first "0"
 * Result: the sequence after which to go on ("": that was all), then the first and the last sequence of each run; null when only
 * the stream itself can tell.
 */
export const sequencesScript = defineScript({
  name: "audit-sequences",
  keys: 3,
  lua: `${RUN_AT}${IS_WHOLE}
if not isWhole(KEYS[3], ARGV[1]) then return nil end
local members = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, 500)
local answer, bytes = {''}, 0
for i = 1, #members, 2 do
  local id, first = string.match(members[i], '^(%S+) (%d+)$')
  local run = id and runAt(id, ARGV[1], first)
  if run then
    answer[#answer + 1] = first
    answer[#answer + 1] = string.format('%.0f', run.last)
    bytes = bytes + #run.leaves
  end
  -- To look at an entry is to read all of it.
  if bytes > 1048576 or i == 999 then
    answer[1] = members[i + 1]
    break
  end
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
  lua: `${LEAVES}${FIRST_WAITING}${WAITING}${ERA}
local counted, foreign = unpack(redis.call('HMGET', KEYS[2], '/records', '/foreign'))
local first, leaf = firstWaiting(ARGV[1]), false
for _, entry in ipairs(first and redis.call('XRANGE', KEYS[1], first, '+', 'COUNT', 20) or {}) do
  if not leaf and #entry[2] == 8 and entry[2][7] == 'leaves' then
    local stop = leafStart(entry[2][8], 1)
    leaf = stop and string.sub(entry[2][8], 5, stop - 1)
  end
end
return {(waiting(counted, foreign)), tonumber(foreign or 0), redis.call('XLEN', KEYS[3]), era(), leaf}
`,
});

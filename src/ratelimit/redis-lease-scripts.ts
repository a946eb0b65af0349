import { defineScript } from "../infra/redis-script.ts";
import { ARITHMETIC } from "./redis-arithmetic.ts";

/* Scripts about leases of slots; what they have in common with the others is told in redis-scripts.ts. */

/** A lease is {when it ends, what was asked, counters, slots of each}, packed. */
const LEASES = `
local function lease_of(key)
  local found = redis.call('GET', key)
  if not found then return nil end
  local lease = cmsgpack.unpack(found)
  if lease[1] <= now then return nil end
  return lease
end

local function keep_lease(key, id, lease)
  redis.call('SET', key, cmsgpack.pack(lease), 'PX', kept_ms(lease[1]))
  for i, counter in ipairs(lease[3]) do
    local slots = text(lease[4][i])
    -- New as well when it had ended and been taken out, and then the clock was put back.
    if redis.call('ZADD', counter, text(lease[1]), slots .. ' ' .. id) == 1 then
      redis.call('ZINCRBY', counter, '-' .. slots, '#')
    end
    local keep = tonumber(kept_ms(lease[1]))
    if redis.call('PTTL', counter) < keep then redis.call('PEXPIRE', counter, text(keep)) end
  end
end

local function end_lease(key, id)
  local lease = lease_of(key)
  redis.call('DEL', key)
  if not lease then return 0 end
  for i, counter in ipairs(lease[3]) do
    taken_of(counter)
    if redis.call('ZREM', counter, text(lease[4][i]) .. ' ' .. id) == 1 then
      if tonumber(redis.call('ZINCRBY', counter, text(lease[4][i]), '#')) >= 0 then redis.call('DEL', counter) end
    end
  end
  return 1
end
`;

/**
 * Takes slots of all limits, or of none.
 *
 * KEYS  1 where the answer is remembered   2 the lease   3... the counter of each limit
 * ARGV  2 the lease's id   3 milliseconds it lasts   4 what was asked, for whoever renews it
 *       5 what the request means ("": it is not remembered)   6 milliseconds to remember it   7... each limit
 * Result: "now allowed lease ends" ("-" and 0 when there was no room), then for each limit " " and how it stands; or "reused".
 */
export const acquireScript = defineScript({
  name: "ratelimit-acquire",
  lua: `${ARITHMETIC}${LEASES}
local meaning = ARGV[5]
if meaning ~= '' then
  local known = redis.call('GET', KEYS[1])
  if known then
    if string.sub(known, 1, #meaning + 1) ~= meaning .. '\\n' then return 'reused' end
    local reply = string.sub(known, #meaning + 2)
    -- A lease that has ended by now would have nobody hold back.
    if tonumber(string.match(reply, '^%d+ %d %S+ (%d+)')) > now then return reply end
  end
end
local allowed, ahead, counters, waits = true, {}, {}, {}
for i = 3, #KEYS do
  local key = KEYS[i]
  local rule, slots = rule_of(ARGV[2 * i + 1]), ARGV[2 * i + 2] + 0
  local units = (ahead[key] or 0) + slots
  waits[i] = wait_for_slots(key, taken_of(key), rule[2], units)
  if not ahead[key] then counters[#counters + 1] = key end
  ahead[key] = units
  if waits[i] > 0 and not rule[5] then allowed = false end
end
local ends = 0
if allowed then
  ends = now + tonumber(ARGV[3]) * 1000
  local slots = {}
  for i, key in ipairs(counters) do slots[i] = ahead[key] end
  keep_lease(KEYS[2], ARGV[2], {ends, ARGV[4], counters, slots})
end
local told = {text(now), allowed and '1' or '0', allowed and ARGV[2] or '-', text(ends)}
for i = 3, #KEYS do
  told[#told + 1] = standing(rule_of(ARGV[2 * i + 1]), waits[i], used_of(KEYS[i], rule_of(ARGV[2 * i + 1])))
end
local reply = table.concat(told, ' ')
if meaning ~= '' and allowed then redis.call('SET', KEYS[1], meaning .. '\\n' .. reply, 'PX', ARGV[6]) end
return reply
`,
});

/**
 * Which counters a lease holds slots of.
 *
 * KEYS  1 the lease   Result: their names; nothing when it is over
 */
export const leaseScript = defineScript({
  name: "ratelimit-lease",
  keys: 1,
  lua: `${ARITHMETIC}${LEASES}
local lease = lease_of(KEYS[1])
if not lease then return false end
return lease[3]
`,
});

/**
 * Makes a lease last longer.
 *
 * KEYS  1 the lease; in a cluster also the counters that it holds slots of   ARGV  2 its id   3 milliseconds from now
 * Result: "now ends", then for each counter " " and "taken first end"; then what was asked. Nothing when it is over.
 */
export const renewScript = defineScript({
  name: "ratelimit-renew",
  lua: `${ARITHMETIC}${LEASES}
local lease = lease_of(KEYS[1])
if not lease then return false end
lease[1] = max(lease[1], now + tonumber(ARGV[3]) * 1000)
keep_lease(KEYS[1], ARGV[2], lease)
local told = {text(now), text(lease[1])}
for _, counter in ipairs(lease[3]) do
  told[#told + 1] = text(taken_of(counter))
  told[#told + 1] = text(first_end(counter))
end
return {table.concat(told, ' '), lease[2]}
`,
});

/** KEYS  1 the lease; in a cluster also the counters that it holds slots of   ARGV  2 its id   Result: 1 when there was one. */
export const returnScript = defineScript({
  name: "ratelimit-return",
  lua: `${ARITHMETIC}${LEASES}
return end_lease(KEYS[1], ARGV[2])
`,
});

/** KEYS  counters that hold slots   Result: the ids of the leases that hold some of them. */
export const holdersScript = defineScript({
  name: "ratelimit-holders",
  lua: `
local holders = {}
for _, key in ipairs(KEYS) do
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, 1, '+inf')) do
    holders[#holders + 1] = string.match(member, '^%d+ (.*)$')
  end
end
return holders
`,
});

/**
 * Forgets what was used; slots, of which leases were ended before, only if nobody has taken some since.
 *
 * KEYS  the counter of each limit   ARGV  2... "1" for each that holds slots, "0" for the others
 */
export const resetScript = defineScript({
  name: "ratelimit-reset",
  lua: `${ARITHMETIC}
for i, key in ipairs(KEYS) do
  local is_free = ARGV[i + 1] == '0'
  if not is_free then
    taken_of(key)
    is_free = redis.call('ZCOUNT', key, 1, '+inf') == 0
  end
  if is_free then redis.call('DEL', key) end
end
return 1
`,
});

import { defineScript } from "../infra/redis-script.ts";
import { ARITHMETIC } from "./redis-arithmetic.ts";

/*
 * Every script works on keys of one slot only. ARGV[1] is the time in microseconds, for tests; empty: the clock of Redis.
 * A limit is two arguments, the rule as "algorithm limit period burst shadow" (redis-wire.ts) and how much. How it stands
 * afterwards is told as "limit shadow wait remaining overdrawn reset" (wait -1: never; reset 0: none).
 */

/**
 * Several calls of Check or Peek, one after the other; each is decided as one.
 *
 * KEYS  for each call: where its answer is remembered, if it is; then the counter of each limit
 * ARGV  2... for each call: its mode and how many limits ("p" looks, "c" charges if allowed, "a" charges always; "r" before it
 *       when the answer is remembered, then also what the request means and for how many milliseconds), then each limit
 * Result: for each call now, allowed (1 or 0), and for each limit wait, remaining, overdrawn and reset: whole numbers, since texts
 * would take longer to make than all else here. When the answer is remembered, one text instead: "now allowed" and how each
 * limit stands, or "reused" when the request was another one.
 */
const CHECKS = {
  name: "ratelimit-check",
  lua: `${ARITHMETIC}
local k, a, n, replies = 1, 2, 0, {}
local rules, keys, costs, needs, waits, states, charged, uses, resets = {}, {}, {}, {}, {}, {}, {}, {}, {}
local is_taken_over = {}

local function wait_of(i)
  local rule = rules[i]
  if rule[1] == SLOTS then return wait_for_slots(keys[i], taken_of(keys[i]), rule[2], needs[i]) end
  return wait_for[rule[1]](states[i], rule, needs[i])
end

local function decide(mode, count)
  local allowed, always = true, mode == 'a'
  for i = 1, count do
    local key, rule, cost = KEYS[k], rule_of(ARGV[a]), ARGV[a + 1] + 0
    k, a = k + 1, a + 2
    keys[i], rules[i], costs[i], states[i], is_taken_over[i] = key, rule, cost, nil, false
    local ahead = 0
    for j = 1, i - 1 do
      if keys[j] == key then
        states[i] = states[j]
        -- What is denied for want of room waits for all of what it asks for; a shadow that has no room is not charged.
        if waits[j] == 0 or always or not rules[j][5] then ahead = ahead + costs[j] end
      end
    end
    if rule[1] ~= SLOTS and not states[i] then states[i], is_taken_over[i] = read(key, rule) end
    needs[i] = ahead + max(1, cost)
    local wait = wait_of(i)
    waits[i] = wait
    if wait > 0 and not rule[5] then allowed = false end
  end
  local charges = always or (mode == 'c' and allowed)
  for i = 1, count do
    charged[i] = charges and costs[i] > 0 and (waits[i] == 0 or always)
    if charged[i] then
      local s = states[i]
      s[3] = min(MOST_USED, s[3] + costs[i])
    end
  end
  for i = 1, count do
    uses[i], resets[i] = used_of(keys[i], rules[i], states[i])
    -- What was counted by another period is kept as it counts from now on, or else who is denied is told another time at each call.
    if charged[i] or (is_taken_over[i] and mode ~= 'p') then write(keys[i], states[i], resets[i]) end
    -- What was charged although there was no room has to be waited for as well.
    if always and waits[i] > 0 then waits[i] = wait_of(i) end
  end
  return allowed
end

while ARGV[a] do
  local _, _, remembered, mode, count = string.find(ARGV[a], '^(r?)(%a)(%d+)$')
  count = count + 0
  a = a + 1
  if remembered == '' then
    local allowed = decide(mode, count)
    replies[n + 1], replies[n + 2] = now, allowed and 1 or 0
    n = n + 2
    for i = 1, count do
      local left = rules[i][4] - uses[i]
      replies[n + 1], replies[n + 2] = bounded(waits[i]), max(0, left)
      replies[n + 3], replies[n + 4] = max(0, -left), resets[i]
      n = n + 4
    end
  else
    local memory, meaning, keep = KEYS[k], ARGV[a], ARGV[a + 1]
    k, a, n = k + 1, a + 2, n + 1
    local known = redis.call('GET', memory)
    if known then
      local same = string.sub(known, 1, #meaning + 1) == meaning .. '\\n'
      replies[n] = same and string.sub(known, #meaning + 2) or 'reused'
      k, a = k + count, a + 2 * count
    else
      local told = {text(now) .. (decide(mode, count) and ' 1' or ' 0')}
      for i = 1, count do told[i + 1] = standing(rules[i], waits[i], uses[i], resets[i]) end
      replies[n] = table.concat(told, ' ')
      redis.call('SET', memory, meaning .. '\\n' .. replies[n], 'PX', keep)
    end
  end
end
return replies
`,
};
export const checkScript = defineScript(CHECKS);
export const severalChecksScript = defineScript({ ...CHECKS, divisible: true });

/**
 * Gives back, in order.
 *
 * KEYS  where the answer is remembered, then the counter of each limit
 * ARGV  2 when it was charged, in microseconds ("": now)   3 what the request means ("": it is not remembered)
 *       4 milliseconds to remember it   5... each limit
 * Result: "now", then for each limit " " and how much was given back, then for each " " and how it stands; or "reused".
 */
export const refundScript = defineScript({
  name: "ratelimit-refund",
  lua: `${ARITHMETIC}
local charged_at, meaning = tonumber(ARGV[2]) or now, ARGV[3]
if meaning ~= '' then
  local known = redis.call('GET', KEYS[1])
  if known then
    if string.sub(known, 1, #meaning + 1) ~= meaning .. '\\n' then return 'reused' end
    return string.sub(known, #meaning + 2)
  end
end
local told = {text(now)}
for i = 2, #KEYS do
  local rule = rule_of(ARGV[2 * i + 1])
  local state, back = refunded[rule[1]](read(KEYS[i], rule), rule, charged_at, ARGV[2 * i + 2] + 0)
  local _, reset = level[rule[1]](state, rule)
  write(KEYS[i], state, reset)
  told[#told + 1] = text(back)
end
for i = 2, #KEYS do
  local rule = rule_of(ARGV[2 * i + 1])
  local state = read(KEYS[i], rule)
  told[#told + 1] = standing(rule, wait_for[rule[1]](state, rule, 1), used_of(KEYS[i], rule, state))
end
local reply = table.concat(told, ' ')
if meaning ~= '' then redis.call('SET', KEYS[1], meaning .. '\\n' .. reply, 'PX', ARGV[4]) end
return reply
`,
});

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

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

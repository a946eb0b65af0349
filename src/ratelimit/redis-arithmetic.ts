import { MOST_BACK_US } from "./algorithms/counted.ts";
import { SLOTS_OF_LEASES } from "./redis-slots.ts";

/**
 * The algorithms in Lua, number for number as algorithms/*.ts have them: a test holds one to the other. `now` is in microseconds,
 * by the clock of Redis unless a test gives another.
 */
export const ARITHMETIC = `
local now, moved_clock = tonumber(ARGV[1]), true
if not now then
  local time = redis.call('TIME')
  now, moved_clock = tonumber(time[1]) * 1000000 + tonumber(time[2]), false
end
local floor, ceil, max, min, huge = math.floor, math.ceil, math.max, math.min, math.huge
local MOST_USED = 35184372088831

-- Times end in the year 2255; -1 stands for never.
local LAST = 9000000000000000
local function bounded(time)
  if time == huge then return -1 end
  return min(time, LAST)
end
local function text(number) return string.format('%d', number) end

-- Whole part and rest of a * b / c, exact beyond 2^53.
local function muldiv(a, b, c)
  local product = a * b
  if product <= 9007199254740991 then
    local whole = floor(product / c)
    return whole, product - whole * c
  end
  local wholes, part = floor(a / c) * b, a % c
  local whole, rest, place, left = 0, 0, 1, b
  while place * 128 <= b do place = place * 128 end
  while place >= 1 do
    local digit = floor(left / place)
    left = left - digit * place
    local sum = rest * 128 + part * digit
    whole = whole * 128 + floor(sum / c)
    rest = sum % c
    place = place / 128
  end
  return wholes + whole, rest
end

local function divide_up(a, b, c)
  local whole, rest = muldiv(a, b, c)
  if rest > 0 then return whole + 1 end
  return whole
end

-- A state is {at, period, used, rest}; a rule is {algorithm, limit, period, burst, shadow}.
local FIXED, SLIDING, BUCKET, SLOTS = 1, 2, 3, 4

local function left_of(s) return s[1] + s[2] - max(now, s[1]) end
local function carried(s)
  if s[4] == 0 then return 0 end
  return divide_up(left_of(s), s[4], s[2])
end
local function time_to_fill(used, rest, period, limit)
  local whole, remains = muldiv(period, used, limit)
  return whole + ceil((remains + rest) / limit)
end

local moved = {
  [FIXED] = function(s, r)
    local period = r[3]
    local is_ahead = s and s[1] - now > period
    local time = s and not is_ahead and max(now, s[1]) or now
    local at = time - time % period
    if not s or time >= s[1] + s[2] then return {at, period, 0, 0} end
    if s[2] == period and not is_ahead then return s end
    return {at, period, s[3], 0}
  end,
  [SLIDING] = function(s, r)
    local period = r[3]
    if not s then return {now - now % period, period, 0, 0} end
    local time = max(now, s[1])
    if s[1] - now > period then
      time = now
      s = {time - time % s[2], s[2], s[3], s[4]}
    end
    if time >= s[1] + s[2] then
      local before = 0
      if time < s[1] + 2 * s[2] then before = s[3] end
      s = {time - time % s[2], s[2], 0, before}
    end
    if s[2] == period then return s end
    return {time - time % period, period, min(MOST_USED, s[3] + carried(s)), 0}
  end,
  [BUCKET] = function(s, r)
    local limit, period = r[2], r[3]
    if not s then return {now, period, 0, 0} end
    local used, rest = s[3], s[4]
    if s[2] ~= period then rest = divide_up(period, rest, s[2]) end
    if rest >= period then rest, used = rest - period, used + 1 end
    local since = s[1]
    if since - now > ${MOST_BACK_US} then since = now end
    local at = max(now, since)
    local whole, part = muldiv(at - since, limit, period)
    if whole > used or (whole == used and part >= rest) then return {at, period, 0, 0} end
    used, rest = used - whole, rest - part
    if rest < 0 then used, rest = used - 1, rest + period end
    return {at, period, used, rest}
  end,
}

-- What is used, in whole units, and when it is whole again.
local level = {
  [FIXED] = function(s) return s[3], s[1] + s[2] end,
  [SLIDING] = function(s)
    local reset = max(now, s[1])
    if s[3] > 0 then reset = s[1] + 2 * s[2] elseif s[4] > 0 then reset = s[1] + s[2] end
    return s[3] + carried(s), reset
  end,
  [BUCKET] = function(s, r)
    local total = s[3]
    if s[4] > 0 then total = total + 1 end
    return total, s[1] + time_to_fill(s[3], s[4], s[2], r[2])
  end,
}

local wait_for = {
  [FIXED] = function(s, r, units)
    if units > r[2] then return huge end
    if s[3] + units <= r[2] then return 0 end
    return s[1] + s[2] - now
  end,
  [SLIDING] = function(s, r, units)
    if units > r[2] then return huge end
    local room, left, early = r[2] - units - s[3], left_of(s), max(0, s[1] - now)
    if room >= 0 then
      if carried(s) <= room then return 0 end
      return early + left - (muldiv(s[2], room, s[4]))
    end
    return early + left + s[2] - (muldiv(s[2], r[2] - units, s[3]))
  end,
  [BUCKET] = function(s, r, units)
    if units > r[4] then return huge end
    local over = s[3] + units - r[4]
    if over < 0 or (over == 0 and s[4] == 0) then return 0 end
    return s[1] - now + time_to_fill(over, s[4], s[2], r[2])
  end,
}

-- The state without what is given back, and how much that was.
local refunded = {
  [FIXED] = function(s, r, charged_at, units)
    if charged_at < s[1] then return s, 0 end
    local back = min(units, s[3])
    return {s[1], s[2], s[3] - back, 0}, back
  end,
  [SLIDING] = function(s, r, charged_at, units)
    if charged_at >= s[1] then
      local back = min(units, s[3])
      return {s[1], s[2], s[3] - back, s[4]}, back
    end
    if charged_at < s[1] - s[2] then return s, 0 end
    local next = {s[1], s[2], s[3], max(0, s[4] - units)}
    return next, carried(s) - carried(next)
  end,
  [BUCKET] = function(s, r, charged_at, units)
    if now - charged_at >= time_to_fill(r[4], 0, s[2], r[2]) then return s, 0 end
    local used = s[3]
    if s[4] > 0 then used = used + 1 end
    local back = min(units, used)
    if back > s[3] then return {s[1], s[2], 0, 0}, back end
    return {s[1], s[2], s[3] - back, s[4]}, back
  end,
}

-- The state as of now, and whether it was counted by another period.
local function read(key, rule)
  local found = redis.pcall('GET', key)
  if type(found) == 'string' then
    local _, _, at, period, used, rest = string.find(found, '^(%d+) (%d+) (%d+) (%d+)$')
    -- What somebody else wrote there counts as nothing.
    if at then
      period = period + 0
      return moved[rule[1]]({at + 0, period, used + 0, rest + 0}, rule), period ~= rule[3]
    end
  end
  return moved[rule[1]](nil, rule), false
end

-- Longer than it counts, should the clock be put back a little; and never so long that Redis refuses it.
local function kept_ms(reset)
  if moved_clock then return '600000' end
  return text(min(315360000000, max(0, ceil((reset - now) / 1000)) + 1000))
end

local function write(key, s, reset)
  redis.call('SET', key, string.format('%d %d %d %d', s[1], s[2], s[3], s[4]), 'PX', kept_ms(reset))
end

local rules_read = {}
local function rule_of(written)
  local rule = rules_read[written]
  if rule then return rule end
  local algorithm, limit, period, burst, shadow = string.match(written, '^(%d) (%d+) (%d+) (%d+) (%d)$')
  rule = {algorithm + 0, limit + 0, period + 0, burst + 0, shadow == '1'}
  rules_read[written] = rule
  return rule
end

${SLOTS_OF_LEASES}
-- What is used of a limit and when it is whole again; the state is that of now, where it is counted.
local function used_of(key, rule, s)
  if rule[1] == SLOTS then return taken_of(key), first_end(key) end
  local used, reset = level[rule[1]](s, rule)
  return used, bounded(reset)
end

local function standing(rule, wait, used, reset)
  local most, shadow = rule[4], rule[5] and '1 ' or '0 '
  return text(most) .. ' ' .. shadow ..
    string.format('%d %d %d %d', bounded(wait), max(0, most - used), max(0, used - most), reset)
end
`;

/** What concurrency limits hold, in Lua: of ARITHMETIC, in which `now`, `text`, `max` and `huge` are. */
export const SLOTS_OF_LEASES = `
-- Slots: a sorted set of "<slots> <lease>" by when the lease ends, and '#', whose score is minus the slots taken.
local function taken_of(key)
  local gone = redis.pcall('ZRANGEBYSCORE', key, 1, text(now))
  -- What somebody else wrote there counts as nothing.
  if gone.err then
    redis.call('DEL', key)
  elseif #gone > 0 then
    local freed = 0
    for _, member in ipairs(gone) do freed = freed + tonumber(string.match(member, '^%d+')) end
    redis.call('ZREMRANGEBYSCORE', key, 1, text(now))
    redis.call('ZINCRBY', key, freed, '#')
  end
  return -(tonumber(redis.call('ZSCORE', key, '#') or '0'))
end

local function first_end(key)
  local found = redis.call('ZRANGEBYSCORE', key, 1, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(found[2] or '0')
end

-- Members of ranks, the slots and the end of each in turn. '#' has rank 0.
local function slots_and_ends(key, from, to)
  local found = redis.call('ZRANGE', key, text(from), text(to), 'WITHSCORES')
  for i = 1, #found, 2 do found[i], found[i + 1] = tonumber(string.match(found[i], '^%d+')), tonumber(found[i + 1]) end
  return found
end

local function wait_for_slots(key, taken, limit, slots)
  if slots > limit then return huge end
  local over = taken + slots - limit
  if over <= 0 then return 0 end
  local leases = redis.call('ZCARD', key) - 1
  -- If each has one slot it is known which one has to end. Otherwise it is looked for from the nearer end, since thousands may be held.
  if leases == taken then return slots_and_ends(key, over, over)[2] - now end
  local stay = limit - slots
  if over <= stay then
    for rank = 1, leases, 100 do
      local found = slots_and_ends(key, rank, rank + 99)
      for i = 1, #found, 2 do
        over = over - found[i]
        if over <= 0 then return found[i + 1] - now end
      end
    end
  else
    for rank = leases, 1, -100 do
      local found = slots_and_ends(key, max(1, rank - 99), rank)
      for i = #found - 1, 1, -2 do
        stay = stay - found[i]
        if stay < 0 then return found[i + 1] - now end
      end
    end
  end
  return huge
end
`;

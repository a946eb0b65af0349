import { defineScript } from "../../infra/redis-script.ts";
import { MOST_STREAK, WANTED_MS, WELL_KNOWN_MS, YIELD_MS } from "../record/decide.ts";
import { RETRIED } from "../record/grant.ts";
import { GRANTS_PER_EPOCH } from "../record/token.ts";
import { ATTEMPT_KEPT_MS, RECORD_KEPT_MS } from "./authority.ts";
import { LIFE } from "./redis-life-scripts.ts";
import { RECORD_FIELDS } from "./redis-record.ts";

/*
 * The rules of record/decide.ts, each in one atomic step; where a script and they differ, they are right. What a lock is kept in is said
 * in redis-keys.ts and redis-record.ts, when a partition is alive in redis-life-scripts.ts. A text that may be left out is "" when it is,
 * and otherwise begins with "=". An attempt is kept as what it means, a line feed, and what is to be remembered.
 *
 * ARGV begins with the time in milliseconds, 0 for the server's. Results are {kind, time, ...}; `record` there is its RECORD_FIELDS, or
 * nothing where nobody holds the lock. Kind "life": the partition has to begin a new life first.
 */
const NOW = `
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
`;

const ALIVE = `${LIFE}
local life, epoch, count = unpack(redis.call('HMGET', KEYS[2], 'life', 'epoch', 'count'))
if not isBegun(life, epoch, count, ARGV[2]) then return {'life', now} end
`;

const NUMBERS = ["token", "ttl", "acquire", "expire", "renewals", "ended_ms", "streak", "wanted", "rival_until"];

const RECORD = `
local ${RECORD_FIELDS.join(", ")} = unpack(redis.call('HMGET', KEYS[1], ${RECORD_FIELDS.map((it) => `'${it}'`).join(", ")}))
${NUMBERS.map((it) => `${it} = tonumber(${it})`).join("; ")}
local live = token and ended == '' and expire > now
local function answer(kind) return {kind, now, ${RECORD_FIELDS.join(", ")}} end
local function refusal(kind)
  if live then return answer(kind) end
  return {kind, now}
end
local function isKept(by) return by == '' or by == '=' .. stream end
`;

/**
 * Takes a lock.
 *
 * KEYS  1 record   2 marker   3 attempt, if the request names itself
 * ARGV  2 smallest epoch   3 by the server's clock, when the caller has stopped waiting (0: unknown)   4 ttl   5 owner   6 purpose
 *       7 caller   8 instance   9 stream   10 "1" if it waits   11 name of this take   12 request   13 its meaning
 * Result: {"granted", time, token}; {"again", time, record}; {"held", time, record}; {"yield", time, milliseconds}; {"over", time},
 *         {"reused", time}: its attempt; {"late", time}: nothing was done
 */
export const takeScript = defineScript({
  name: "lock-take",
  lua: `${NOW}
if ARGV[3] ~= '0' and now > tonumber(ARGV[3]) then return {'late', now} end
${ALIVE}${RECORD}
local me, id, meant = ARGV[8], ARGV[12], ARGV[13]
local attempt = id ~= '' and redis.call('GET', KEYS[3])
if attempt and string.sub(attempt, 1, #meant + 1) ~= meant .. '\\n' then return {'reused', now} end
if live then
  if id ~= '' and request == id then
    if meaning ~= meant then return {'reused', now} end
    if stream == '' then
      stream = '${RETRIED}'
      redis.call('HSET', KEYS[1], 'stream', stream)
    end
    return answer('again')
  end
  if attempt then return {'over', now} end
  if ARGV[10] == '1' then
    local till, known = now + ${WANTED_MS}, now + ${WELL_KNOWN_MS}
    local isRival = me ~= instance and (rival_until <= now or rival == '' or (rival == me and rival_until < known))
    if isRival then
      rival, rival_until = me, till
      redis.call('HSET', KEYS[1], 'rival', rival, 'rival_until', rival_until)
    end
    if isRival or wanted < known then
      wanted = math.max(wanted, till)
      redis.call('HSET', KEYS[1], 'wanted', wanted)
    end
  end
  return answer('held')
end
if attempt then return {'over', now} end
local isAgain = token and instance == me
local hadItsShare = isAgain and streak >= ${MOST_STREAK}
if hadItsShare and rival ~= '' and rival ~= me and rival_until > now then
  local after = (ended == '' and expire or ended_ms) + ${YIELD_MS} - now
  if after > 0 then return {'yield', now, after} end
end
if not token or rival == me or hadItsShare then rival, rival_until = '', 0 end
token = epoch * ${GRANTS_PER_EPOCH} + redis.call('HINCRBY', KEYS[2], 'count', 1)
redis.call('HSET', KEYS[1], 'token', token, 'owner', ARGV[5], 'purpose', ARGV[6], 'caller', ARGV[7], 'instance', me,
  'stream', ARGV[9], 'request', id, 'meaning', meant, 'ttl', ARGV[4], 'acquire', now, 'expire', now + ARGV[4], 'renewals', 0,
  'ended', '', 'ended_ms', 0, 'streak', isAgain and streak + 1 or 1, 'wanted', wanted or 0, 'rival', rival,
  'rival_until', rival_until, 'take', ARGV[11])
redis.call('PEXPIRE', KEYS[1], ARGV[4] + ${RECORD_KEPT_MS})
if id ~= '' then redis.call('SET', KEYS[3], meant .. '\\n', 'PX', ARGV[4] + ${ATTEMPT_KEPT_MS}) end
return {'granted', now, token}
`,
});

/**
 * Makes a lease last longer.
 *
 * KEYS  1 record   2 marker   3 what attempts on this lock begin with
 * ARGV  2 smallest epoch   3 token   4 ttl, "" for that of the grant   5 "=" and the stream that renews, or ""
 *       6 "=" and the stream that goes on with the grant, or ""   7 and its instance
 * Result: {"renewed", time, record}; {why it is over, time, record of who holds the lock now}
 */
export const renewScript = defineScript({
  name: "lock-renew",
  keys: 3,
  lua: `${NOW}${ALIVE}${RECORD}
if token ~= tonumber(ARGV[3]) then return refusal('expired') end
if ended ~= '' then return refusal(ended) end
if not live then return refusal('expired') end
if ARGV[6] == '' and not isKept(ARGV[5]) then return refusal('taken_over') end
if ARGV[6] ~= '' then stream, instance = string.sub(ARGV[6], 2), ARGV[7] end
expire = math.max(expire, now + (tonumber(ARGV[4]) or ttl))
renewals = renewals + 1
-- This needs no memory; and a script that has written may go on where Redis has none left.
redis.call('PEXPIRE', KEYS[1], expire - now + ${RECORD_KEPT_MS})
redis.call('HSET', KEYS[1], 'expire', expire, 'renewals', renewals, 'stream', stream, 'instance', instance)
if request ~= '' then
  redis.call('SET', KEYS[3] .. request, meaning .. '\\n', 'PX', expire - now + ${ATTEMPT_KEPT_MS})
end
return answer('renewed')
`,
});

/**
 * Ends a lease. Whoever waits is told in the same step.
 *
 * KEYS  1 record   2 what attempts on this lock begin with
 * ARGV  2 token, or 0   3 else the name of the take   4 how it ends   5 "=" and the stream that has to keep it, or ""
 *       6 "1" to forget the attempt   7 channel and   8 what to publish there
 * Result: {"released", time, record as it was}; {"not", time, record of who holds the lock now}
 */
export const releaseScript = defineScript({
  name: "lock-release",
  keys: 2,
  lua: `${NOW}${RECORD}
local isMeant = token == tonumber(ARGV[2]) or (ARGV[3] ~= '' and take == ARGV[3])
if not live or not isMeant or not isKept(ARGV[5]) then return refusal('not') end
if ARGV[6] == '1' and stream == '${RETRIED}' then return refusal('not') end
-- First what needs no memory: a script that has written may go on where Redis has none left.
redis.call('PEXPIRE', KEYS[1], ${RECORD_KEPT_MS})
redis.call('HSET', KEYS[1], 'ended', ARGV[4], 'ended_ms', now)
if ARGV[6] == '1' and request ~= '' then redis.call('DEL', KEYS[2] .. request) end
-- Not being allowed to publish must not undo half of it: who waits asks again by itself.
if wanted > now and ARGV[7] ~= '' then redis.pcall('PUBLISH', ARGV[7], ARGV[8]) end
return answer('released')
`,
});

/**
 * Tells who holds a lock.
 *
 * KEYS  1 record   2 marker       ARGV  2 smallest epoch
 * Result: {"held", time, record}; {"free", time, the newest token or 0}
 */
export const lookScript = defineScript({
  name: "lock-look",
  keys: 2,
  lua: `${NOW}${ALIVE}${RECORD}
if live then return answer('held') end
return {'free', now, token or 0}
`,
});

/**
 * Keeps a text under the id of a request, unless one is kept already.
 *
 * KEYS  1 attempt      ARGV  2 meaning of the request   3 text
 * Result: {"kept", time, the text}; {"reused", time}
 */
export const rememberScript = defineScript({
  name: "lock-remember",
  keys: 1,
  lua: `${NOW}
local start = ARGV[2] .. '\\n'
local known = redis.call('GET', KEYS[1])
if not known then
  redis.call('SET', KEYS[1], start .. ARGV[3], 'PX', ${ATTEMPT_KEPT_MS})
  return {'kept', now, ARGV[3]}
end
if string.sub(known, 1, #start) ~= start then return {'reused', now} end
return {'kept', now, string.sub(known, #start + 1)}
`,
});

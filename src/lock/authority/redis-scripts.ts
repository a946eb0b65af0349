import { defineScript } from "../../infra/redis-script.ts";
import { MOST_STREAK, WANTED_MS, WELL_KNOWN_MS, YIELD_MS } from "../record/decide.ts";
import { RETRIED } from "../record/grant.ts";
import { GRANTS_PER_EPOCH } from "../record/token.ts";
import { ATTEMPT_KEPT_MS, RECORD_KEPT_MS } from "./authority.ts";
import { MOST_GRANTS } from "./redis-life-scripts.ts";
import { END, HELD, LEASE_FIELDS, RECORD_FIELDS } from "./redis-record.ts";

/*
 * The rules of record/decide.ts, each in one atomic step; where a script and they differ, they are right. What lies
 * under which key is said in redis-keys.ts, redis-record.ts and redis-life-scripts.ts. A stream that may be left out is
 * "" when it is, and otherwise begins with "=". An attempt is kept as what it means, a line feed, and what is to be
 * remembered.
 *
 * ARGV begins with the time in milliseconds, 0 for the server's. Results are {kind, time, ...}; `lease` there is the
 * LEASE_FIELDS of who holds the lock, or nothing where nobody does. Kind "life": the partition is not, or should not be,
 * in this life.
 */
const NOW = `
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
`;

// The server itself is asked who it is: a command may have been led elsewhere since it was sent.
const ALIVE = `
if redis.call('HGET', KEYS[2], 'life') ~= ARGV[2] .. ' ' .. ARGV[3] or
  not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. ARGV[2], 1, true) then
  return {'life', now}
end
`;

const RECORD = `
local ${RECORD_FIELDS.join(", ")}
local record, ended = redis.call('GET', KEYS[1])
if record then
  ended = string.sub(record, 1, 1)
  local _, fields = cmsgpack.unpack_one(record, ${END})
  ${RECORD_FIELDS.join(", ")} = unpack(fields)
end
local live = ended == 'h' and expire > now
`;

/*
 * These are written out wherever they are used: a function that sees so many variables costs more each time it is made
 * than most that a script does with them.
 */
const PACKED = `'${HELD}' .. cmsgpack.pack({${RECORD_FIELDS.join(", ")}})`;

/** While it is held. */
function keep(ms: string): string {
  return `redis.call('SET', KEYS[1], ${PACKED}, 'PX', ${ms} + ${RECORD_KEPT_MS})`;
}

/** Also where Redis has no memory left: there a script may go on once it has written something that needs none. */
function anyway(...command: readonly string[]): string {
  return `local done = redis.pcall(${command.join(", ")})
if type(done) == 'table' and done.err then
  redis.call('PEXPIRE', KEYS[1], ${RECORD_KEPT_MS})
  redis.call(${command.join(", ")})
end`;
}

function answer(kind: string): string {
  return `return live and {${kind}, now, ${LEASE_FIELDS.join(", ")}} or {${kind}, now}`;
}

/**
 * Takes a lock.
 *
 * KEYS  1 record   2 marker   3 attempt, if the request names itself
 * ARGV  2 life   3 epoch   4 when the caller has stopped waiting, by the server's clock (0: unknown)   5 ttl   6 who
 *       7 instance   8 "1" if it waits   9 name of this take   10 stream   and, if the request names itself, 11 its id
 *       12 its meaning
 * Result: {"granted", time, token}; {"again", time, lease}; {"held", time, lease}; {"yield", time, milliseconds};
 *         {"over", time}, {"reused", time}: the attempt; {"late", time}: nothing was done
 */
export const takeScript = defineScript({
  name: "lock-take",
  lua: `${NOW}
if ARGV[4] ~= '0' and now > tonumber(ARGV[4]) then return {'late', now} end
${ALIVE}${RECORD}
local me, id, meant = ARGV[7], ARGV[11] or '', ARGV[12] or ''
local attempt = id ~= '' and redis.call('GET', KEYS[3])
if attempt and string.sub(attempt, 1, #meant + 1) ~= meant .. '\\n' then return {'reused', now} end
if live then
  if id ~= '' and request == id then
    if meaning ~= meant then return {'reused', now} end
    if stream == '' then
      stream = '${RETRIED}'
      ${keep("expire - now")}
    end
    ${answer("'again'")}
  end
  if attempt then return {'over', now} end
  if ARGV[8] == '1' then
    local till, known = now + ${WANTED_MS}, now + ${WELL_KNOWN_MS}
    local isRival = me ~= instance and (rival == '' or rival == instance or rival_until < known)
    if isRival then rival, rival_until = me, till end
    if isRival or wanted < known then
      wanted = math.max(wanted, till)
      ${keep("expire - now")}
    end
  end
  ${answer("'held'")}
end
if attempt then return {'over', now} end
local isAgain = record and instance == me
local hadItsShare = isAgain and streak >= ${MOST_STREAK}
if hadItsShare and rival ~= '' and rival ~= me and rival_until > now then
  local since = ended == 'h' and expire or tonumber(string.sub(record, 2, ${END}))
  local after = since + ${YIELD_MS} - now
  if after > 0 then return {'yield', now, after} end
end
local count = redis.call('HINCRBY', KEYS[2], 'count', 1)
if count > ${MOST_GRANTS} then return {'life', now} end
if not record or rival == me or hadItsShare then rival, rival_until = '', 0 end
token = ARGV[3] * ${GRANTS_PER_EPOCH} + count
streak = isAgain and streak + 1 or 1
who, instance, stream, request, meaning, take = ARGV[6], me, ARGV[10], id, meant, ARGV[9]
ttl, acquire, renewals, wanted = tonumber(ARGV[5]), now, 0, wanted or 0
expire = now + ttl
${keep("ttl")}
if id ~= '' then redis.call('SET', KEYS[3], meant .. '\\n', 'PX', ttl + ${ATTEMPT_KEPT_MS}) end
return {'granted', now, token}
`,
});

/**
 * Makes a lease last longer.
 *
 * KEYS  1 record   2 marker   3 what attempts on this lock begin with
 * ARGV  2 life   3 epoch   4 token   5 ttl, "" for that of the grant   6 "=" and the stream that renews, or ""
 *       7 "=" and the stream that goes on with the grant, or ""   8 and its instance
 * Result: {"renewed", time, lease}; {why it is over, time, lease}
 */
export const renewScript = defineScript({
  name: "lock-renew",
  keys: 3,
  lua: `${NOW}${ALIVE}${RECORD}
if token ~= tonumber(ARGV[4]) then ${answer("'expired'")} end
if ended ~= 'h' then ${answer("ended == 'r' and 'released' or 'forced'")} end
if not live then ${answer("'expired'")} end
if ARGV[7] ~= '' then stream, instance = string.sub(ARGV[7], 2), ARGV[8]
elseif ARGV[6] ~= '' and ARGV[6] ~= '=' .. stream then ${answer("'taken_over'")} end
expire = math.max(expire, now + (tonumber(ARGV[5]) or ttl))
renewals = renewals + 1
local packed = ${PACKED}
${anyway("'SET'", "KEYS[1]", "packed", "'PX'", `expire - now + ${RECORD_KEPT_MS}`)}
if request ~= '' then
  redis.call('SET', KEYS[3] .. request, meaning .. '\\n', 'PX', expire - now + ${ATTEMPT_KEPT_MS})
end
${answer("'renewed'")}
`,
});

/**
 * Ends a lease. Whoever waits is told in the same step; not being allowed to publish must not undo half of it.
 *
 * KEYS  1 record   2 what attempts on this lock begin with
 * ARGV  2 token, or 0   3 else the name of the take   4 how it ends   5 "=" and the stream that has to keep it, or ""
 *       6 "1" to forget the attempt   7 channel and   8 what to publish there
 * Result: {"released", time, lease as it was}; {"not", time, lease}
 */
export const releaseScript = defineScript({
  name: "lock-release",
  keys: 2,
  lua: `${NOW}${RECORD}
local isMeant = token == tonumber(ARGV[2]) or (ARGV[3] ~= '' and take == ARGV[3])
local isKept = ARGV[5] == '' or ARGV[5] == '=' .. (stream or '')
local undo = ARGV[6] == '1'
if not live or not isMeant or not isKept or (undo and stream == '${RETRIED}') then ${answer("'not'")} end
local ending = string.format('%s%013.0f', string.sub(ARGV[4], 1, 1), now)
${anyway("'SETRANGE'", "KEYS[1]", "0", "ending")}
if undo and request ~= '' then redis.call('DEL', KEYS[2] .. request) end
if wanted > now and ARGV[7] ~= '' then redis.pcall('PUBLISH', ARGV[7], ARGV[8]) end
${answer("'released'")}
`,
});

/**
 * Tells who holds a lock.
 *
 * KEYS  1 record   2 marker       ARGV  2 life   3 epoch
 * Result: {"held", time, lease}; {"free", time, the newest token or 0}
 */
export const lookScript = defineScript({
  name: "lock-look",
  keys: 2,
  lua: `${NOW}${ALIVE}${RECORD}
if live then ${answer("'held'")} end
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

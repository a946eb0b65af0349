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
 * ARGV begins with the time in milliseconds, 0 for the server's. Answers are {kind, time, ...}; `lease` there is the
 * LEASE_FIELDS of who holds the lock, or nothing where nobody does. Kind "life": the partition is not, or should not be,
 * in this life. Kind "foreign": what lies under the lock's key is not a record.
 *
 * Locks are taken and released by the batch (redis-batches.ts): each order is decided by itself, one after the other, and
 * the result is {time, answer, ...}, or {time, why} where nothing was done for any of them.
 */
const NOW = `
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
`;

/** The server itself is asked who it is: a command may have been led elsewhere since it was sent. */
function alive(marker: string, otherwise: string): string {
  return `
if redis.call('HGET', ${marker}, 'life') ~= ARGV[2] .. ' ' .. ARGV[3] or
  not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. ARGV[2], 1, true) then
  return ${otherwise}
end
`;
}

const ALIVE = alive("KEYS[2]", "{'life', now}");

/**
 * Of the lock whose record is under `key`. What somebody else has put there is the end of this order, and not of the others that
 * are carried out with it.
 */
const RECORD = `
local ${RECORD_FIELDS.join(", ")}
local record, ended = redis.pcall('GET', key)
if record then
  local isRead, _, fields
  if type(record) == 'string' then isRead, _, fields = pcall(cmsgpack.unpack_one, record, ${END})
  elseif not string.find(record.err, 'WRONGTYPE', 1, true) then redis.call('GET', key) end
  if not isRead or type(fields) ~= 'table' or #fields ~= ${RECORD_FIELDS.length} then return {'foreign', now} end
  ended = string.sub(record, 1, 1)
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
  return `redis.call('SET', key, ${PACKED}, 'PX', ${ms} + ${RECORD_KEPT_MS})`;
}

/** Also where Redis has no memory left: there a script may go on once it has written something that needs none. */
function anyway(...command: readonly string[]): string {
  return `local done = redis.pcall(${command.join(", ")})
if type(done) == 'table' and done.err then
  redis.call('PEXPIRE', key, ${RECORD_KEPT_MS})
  redis.call(${command.join(", ")})
end`;
}

function answer(kind: string): string {
  return `return live and {${kind}, now, ${LEASE_FIELDS.join(", ")}} or {${kind}, now}`;
}

/**
 * Takes locks.
 *
 * KEYS  1 marker   and for each order its record and, if the request names itself, the attempt
 * ARGV  2 life   3 epoch   4 when the callers have stopped waiting, by the server's clock (0: unknown)   5 instance
 *       and for each order: how: "w" if it waits, "r" if the request names itself, "s" if a stream is to keep it
 *       ttl   who   and, in this order: the request's id and its meaning, or a name of this take   the stream
 * Answers: the token that is granted; {"again", time, lease}; {"held", time, lease}; {"yield", time, milliseconds};
 *          {"over", time}, {"reused", time}: the attempt; "life". For all of them: "life", "late"
 */
export const takeScript = defineScript({
  name: "lock-take",
  lua: `${NOW}
if ARGV[4] ~= '0' and now > tonumber(ARGV[4]) then return {now, 'late'} end
${alive("KEYS[1]", "{now, 'life'}")}
local me = ARGV[5]
local function take(key, ms, whom, waits, keeper, id, meant, attempted, called)
  ${RECORD}
  local attempt = attempted and redis.call('GET', attempted)
  if attempt and string.sub(attempt, 1, #meant + 1) ~= meant .. '\\n' then return {'reused', now} end
  if live then
    if attempted and request == id then
      if meaning ~= meant then return {'reused', now} end
      if stream == '' then
        stream = '${RETRIED}'
        ${keep("expire - now")}
      end
      ${answer("'again'")}
    end
    if attempt then return {'over', now} end
    if waits then
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
  local count = redis.call('HINCRBY', KEYS[1], 'count', 1)
  if count > ${MOST_GRANTS} then return 'life' end
  if not record or rival == me or hadItsShare then rival, rival_until = '', 0 end
  token = ARGV[3] * ${GRANTS_PER_EPOCH} + count
  streak = isAgain and streak + 1 or 1
  who, instance, stream, request, meaning, take = whom, me, keeper, id, meant, called
  ttl, acquire, renewals, wanted = ms, now, 0, wanted or 0
  expire = now + ttl
  ${keep("ttl")}
  if attempted then redis.call('SET', attempted, meant .. '\\n', 'PX', ttl + ${ATTEMPT_KEPT_MS}) end
  return token
end
local answers, at, key = {now}, 6, 2
while at <= #ARGV do
  local how = ARGV[at]
  local ms, whom, id, meant, called, keeper, attempted = tonumber(ARGV[at + 1]), ARGV[at + 2], '', '', '', '', nil
  local record = KEYS[key]
  at, key = at + 3, key + 1
  if string.find(how, 'r', 1, true) then
    id, meant, attempted = ARGV[at], ARGV[at + 1], KEYS[key]
    at, key = at + 2, key + 1
  else
    called, at = ARGV[at], at + 1
  end
  if string.find(how, 's', 1, true) then keeper, at = ARGV[at], at + 1 end
  local waits = string.find(how, 'w', 1, true)
  answers[#answers + 1] = take(record, ms, whom, waits, keeper, id, meant, attempted, called)
end
return answers
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
  lua: `local key = KEYS[1]
${NOW}${ALIVE}${RECORD}
if token ~= tonumber(ARGV[4]) then ${answer("'expired'")} end
if ended ~= 'h' then ${answer("ended == 'r' and 'released' or 'forced'")} end
if not live then ${answer("'expired'")} end
if ARGV[7] ~= '' then stream, instance = string.sub(ARGV[7], 2), ARGV[8]
elseif ARGV[6] ~= '' and ARGV[6] ~= '=' .. stream then ${answer("'taken_over'")} end
expire = math.max(expire, now + (tonumber(ARGV[5]) or ttl))
renewals = renewals + 1
local packed = ${PACKED}
${anyway("'SET'", "key", "packed", "'PX'", `expire - now + ${RECORD_KEPT_MS}`)}
if request ~= '' then
  redis.call('SET', KEYS[3] .. request, meaning .. '\\n', 'PX', expire - now + ${ATTEMPT_KEPT_MS})
end
${answer("'renewed'")}
`,
});

/**
 * Ends leases. Whoever waits is told in the same step; not being allowed to publish must not undo half of it.
 *
 * KEYS  for each order the record and, to undo it, what attempts on this lock begin with
 * ARGV  2 channel   and for each order: how: "u" to undo the attempt, "f" if by force, "s" if a stream has to keep it,
 *       "t" if it is the name of a take that is known, "b" if nobody asks whose it was
 *       token, or the name of the take   what to publish   and the stream
 * Answers: {"released", time, lease as it was}, or 1 where nobody asks and no stream kept it; {"not", time, lease}
 */
export const releaseScript = defineScript({
  name: "lock-release",
  lua: `${NOW}
local function release(key, how, what, told, keeper, attempts)
  ${RECORD}
  local isMeant = token == tonumber(what)
  if string.find(how, 't', 1, true) then isMeant = take == what end
  local isKept = not keeper or keeper == stream
  if not live or not isMeant or not isKept or (attempts and stream == '${RETRIED}') then ${answer("'not'")} end
  local ending = string.format(string.find(how, 'f', 1, true) and 'f%013.0f' or 'r%013.0f', now)
  ${anyway("'SETRANGE'", "key", "0", "ending")}
  if attempts and request ~= '' then redis.call('DEL', attempts .. request) end
  if wanted > now and ARGV[2] ~= '' then redis.pcall('PUBLISH', ARGV[2], told) end
  if string.find(how, 'b', 1, true) and (stream == '' or stream == '${RETRIED}') then return 1 end
  ${answer("'released'")}
end
local answers, at, key = {now}, 3, 1
while at <= #ARGV do
  local how, record, keeper, attempts = ARGV[at], KEYS[key], nil, nil
  local what, told = ARGV[at + 1], ARGV[at + 2]
  at, key = at + 3, key + 1
  if string.find(how, 's', 1, true) then keeper, at = ARGV[at], at + 1 end
  if string.find(how, 'u', 1, true) then attempts, key = KEYS[key], key + 1 end
  answers[#answers + 1] = release(record, how, what, told, keeper, attempts)
end
return answers
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
  lua: `local key = KEYS[1]
${NOW}${ALIVE}${RECORD}
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

import { defineScript } from "../../infra/redis-script.ts";
import { AT, HEAD, TOKEN, UNCOVERED } from "./copy-bytes.ts";
import { ASIDE } from "./copy-keys.ts";
import { LONGEST_DOCUMENT_MS } from "./copy-store.ts";
import { OWN_END } from "./legacy-document.ts";

/*
 * Every script takes pairs of keys, a copy and its document (twice the copy where that lies in another slot); in a cluster one pair
 * only. What a copy looks like is said in copy-bytes.ts. A stamp that cannot be read makes it no copy, so what someone else put in its
 * place is simply replaced. A cover keeps nothing out when its time is over, by the clock of the server; but what lies under it is not
 * read before it is made anew, since whoever put it there may have committed. A document that somebody else wrote is not dropped,
 * since it may be all there is of what is yet to be imported; only what is committed takes its place, and puts it aside.
 */
const COMMON = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function digits(number) return string.format('%016.0f', number) end
local function at(head, first, width) return tonumber(string.sub(head, first + 1, first + width)) end
local function look(key)
  local head = redis.pcall('GETRANGE', key, 0, ${HEAD - 1})
  if type(head) ~= 'string' or #head < ${HEAD} or string.sub(head, 1, 4) ~= 'hfc1' then return nil end
  local cover, till = at(head, ${AT.cover}, 16), at(head, ${AT.until}, 16)
  local stamp, room = at(head, ${AT.stamp}, 16), at(head, ${AT.room}, 10)
  if not (cover and till and stamp and room) then return nil end
  return {
    cover = cover, till = till, token = string.sub(head, ${AT.token + 1}, ${AT.token + TOKEN}), stamp = stamp, room = room, covered = cover > 0 and till > now,
    life = string.sub(head, ${AT.life + 1}, ${AT.life + 40}), state = string.sub(head, ${AT.stateVersion + 1}, ${
      AT.stateVersion + 16
    }),
  }
end
local function keep(key, ms)
  local left = redis.call('PTTL', key)
  if left >= 0 and left < ms then redis.call('PEXPIRE', key, ms) end
end
local function isOwn(key)
  return redis.pcall('GETRANGE', key, -${OWN_END.length}, -1) == '${OWN_END}'
end
local function dropDocument(key)
  if isOwn(key) then redis.pcall('UNLINK', key) end
end
local function setAside(document, copy)
  local aside = copy .. '${ASIDE}'
  if redis.call('EXISTS', document) == 0 or isOwn(document) then return end
  if redis.call('RENAMENX', document, aside) == 0 then return redis.call('UNLINK', document) end
  local left = redis.call('PTTL', aside)
  if left < 0 or left > ${LONGEST_DOCUMENT_MS} then redis.call('PEXPIRE', aside, ${LONGEST_DOCUMENT_MS}) end
end
local NOTHING = string.rep('0', 32) .. string.rep(' ', 40) .. string.rep('0', 30)
`;

/**
 * Puts covers over copies and drops their documents. Where Redis takes no writes that need memory, the copy is dropped instead, and
 * the call fails. One that was held up on its way, and that nobody waits for any more, may come when newer changes are done: so it
 * never takes a newer copy away, and keeps out no less than a cover that lies there.
 *
 * KEYS  pairs       ARGV  1 life   2 when it is too late   3 milliseconds to last   4 token   then for each pair: the stamp
 * Result: now, then for each pair: stamp, end and token of the cover that was there before, whether or not its time is over (0: none);
 *         only now if it came too late, and did nothing
 */
export const coverScript = defineScript({
  name: "conversation-cover",
  lua: `${COMMON}
if now > tonumber(ARGV[2]) then return {now} end
local result, life, lasts, refusal = {now}, ARGV[1], tonumber(ARGV[3]), nil
local function put(key, there, stamp)
  if there and there.covered then stamp = math.max(stamp, there.cover) end
  local cover = digits(stamp) .. digits(now + lasts) .. ARGV[4]
  local done
  if there and there.stamp > 0 and there.life == life then
    done = redis.pcall('SETRANGE', key, ${AT.cover}, cover)
    keep(key, lasts)
  else
    done = redis.pcall('SET', key, 'hfc1' .. cover .. NOTHING, 'PX', lasts)
  end
  if type(done) == 'table' and done.err then
    refusal = refusal or done
    redis.pcall('UNLINK', key)
  end
end
for i = 1, #KEYS, 2 do
  local key, there, stamp = KEYS[i], look(KEYS[i]), tonumber(ARGV[4 + (i + 1) / 2])
  local before, till, token = 0, 0, ''
  if there then before, till, token = there.cover, there.till, there.token end
  if not (there and there.life == life and there.stamp >= stamp) then
    put(key, there, stamp)
    if KEYS[i + 1] ~= key then dropDocument(KEYS[i + 1]) end
  end
  result[#result + 1], result[#result + 2], result[#result + 3] = before, till, token
end
return refusal or result
`,
});

/**
 * Takes covers away under which nothing was changed.
 *
 * KEYS  pairs       ARGV  for each pair: token of the cover; stamp, end and token of the one before (0: none)
 * Result: now, then for each pair 1 if that cover was there
 */
export const uncoverScript = defineScript({
  name: "conversation-uncover",
  lua: `${COMMON}
local result = {now}
for i = 1, #KEYS, 2 do
  local key, there, a = KEYS[i], look(KEYS[i]), (i - 1) / 2 * 4
  local is = there and there.cover > 0 and there.token == ARGV[a + 1]
  if is then
    local before, till, token = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), ARGV[a + 4]
    if before == 0 and there.stamp == 0 then redis.call('UNLINK', key)
    elseif before == 0 then redis.call('SETRANGE', key, ${AT.cover}, '${UNCOVERED}')
    else redis.call('SETRANGE', key, ${AT.cover}, digits(before) .. digits(till) .. token) end
  end
  result[#result + 1] = is and 1 or 0
end
return result
`,
});

/**
 * Stores copies, unless something newer is there. A cover of the same stamp yields: it was put there for this one. After a change
 * also puts aside what somebody else wrote in the document's place.
 *
 * KEYS  pairs       ARGV  1 life   2 when it is too late   3 "1" after a change   then for each pair: stamp, milliseconds to live,
 *                         the copy, or "" and what is held when the state of this version (else "") stays
 * Result: now, then for each pair the place in FILLED (see copy-store.ts)
 */
export const fillScript = defineScript({
  name: "conversation-fill",
  lua: `${COMMON}
local result, life, isLate = {now}, ARGV[1], now > tonumber(ARGV[2])
local function fill(key, a)
  local stamp, lives, copy = tonumber(ARGV[a + 1]), ARGV[a + 2], ARGV[a + 3]
  if isLate then return 5 end
  local there = look(key)
  if there and there.covered and stamp < there.cover then return 3 end
  local isOurs = there and there.stamp > 0 and there.life == life
  if isOurs and there.stamp > stamp then return 2 end
  if isOurs and there.stamp == stamp and there.cover == 0 then return 1 end
  if copy ~= '' then
    redis.call('SET', key, copy, 'PX', lives)
    return 0
  end
  local held = ARGV[a + 4]
  if not isOurs or there.state ~= ARGV[a + 5] or #held > there.room then return 4 end
  redis.call('SETRANGE', key, ${HEAD}, held)
  redis.call('SETRANGE', key, ${AT.heldLength}, string.format('%010d', #held))
  redis.call('SETRANGE', key, ${AT.cover}, '${UNCOVERED}' .. digits(stamp))
  redis.call('PEXPIRE', key, lives)
  return 0
end
for i = 1, #KEYS, 2 do
  result[#result + 1] = fill(KEYS[i], 3 + (i - 1) / 2 * 5)
  if ARGV[3] == '1' and KEYS[i + 1] ~= KEYS[i] then setAside(KEYS[i + 1], KEYS[i]) end
end
return result
`,
});

/**
 * Drops copies that are older, and keeps them out for a while; and documents, which do not say how old they are.
 *
 * KEYS  pairs       ARGV  1 life   2 milliseconds to keep it out   then for each pair: the least stamp
 * Result: now
 */
export const dropScript = defineScript({
  name: "conversation-drop",
  lua: `${COMMON}
local refusal
for i = 1, #KEYS, 2 do
  local key, there, stamp = KEYS[i], look(KEYS[i]), tonumber(ARGV[2 + (i + 1) / 2])
  if not (there and there.life == ARGV[1] and there.stamp >= stamp) then
    if there and there.covered then stamp = math.max(stamp, there.cover) end
    local cover = 'hfc1' .. digits(stamp) .. digits(now + ARGV[2]) .. string.rep('0', ${TOKEN}) .. NOTHING
    local done = redis.pcall('SET', key, cover, 'PX', ARGV[2])
    if type(done) == 'table' and done.err then
      refusal = refusal or done
      redis.pcall('UNLINK', key)
    end
  end
  if KEYS[i + 1] ~= key then dropDocument(KEYS[i + 1]) end
end
return refusal or {now}
`,
});

/**
 * Puts a document beside its copy.
 *
 * KEYS  pair        ARGV  1 life   2 stamp   3 milliseconds to live   4 document
 * Result: now, then 1 if the copy is there, so that the document was stored
 */
export const documentScript = defineScript({
  name: "conversation-document",
  keys: 2,
  lua: `${COMMON}
local there = look(KEYS[1])
if not there or there.life ~= ARGV[1] or there.stamp ~= tonumber(ARGV[2]) or there.cover ~= 0 then return {now, 0} end
setAside(KEYS[2], KEYS[1])
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[3])
return {now, 1}
`,
});

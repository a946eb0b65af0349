import { defineScript } from "../infra/redis-script.ts";

/*
 * Every script works on keys of one slot only. A record begins "h1 <version> " (see redis-record.ts); a version that cannot be
 * read counts as 0, so a key that someone else wrote over is simply replaced.
 */

/** `answer`: the argument from which on there is what to remember. */
const store = (answer: number) => `
local head = redis.pcall('GETRANGE', KEYS[1], 0, 31)
local have, flag = 0, ''
if type(head) == 'string' then
  local digits, kind = string.match(head, '^h1 (%d+) (%a) ')
  if digits and #digits <= 16 then have, flag = tonumber(digits), kind end
end
local guard, version = ARGV[1], tonumber(ARGV[2])
if guard == 'newer' then
  if have > version then return 'version' end
  if have == version and (flag ~= 'd' or string.sub(ARGV[5], 2, 2) == 'd') then return 'version' end
elseif guard == 'ordered' then
  if have >= version then return 'have ' .. string.format('%.0f', have) end
elseif guard == 'version' then
  if have ~= tonumber(ARGV[3]) then return 'version' end
elseif guard == 'seen' then
  if have ~= 0 and have ~= tonumber(ARGV[3]) then return 'version' end
elseif guard == 'lease' then
  if redis.call('GET', KEYS[2]) ~= ARGV[4] then return 'lease' end
  if have ~= 0 and have ~= tonumber(ARGV[3]) then return 'lease' end
end
if guard ~= 'newer' and have >= version then version = have + 1 end
local text = string.format('%.0f', version)
local record = 'h1 ' .. text .. ARGV[5] .. ARGV[6]
if ARGV[7] == '0' then redis.call('SET', KEYS[1], record) else redis.call('SET', KEYS[1], record, 'PX', ARGV[7]) end
local keepsPlace = guard == 'lease' and string.sub(ARGV[5], 2, 2) == 'd'
if guard ~= 'newer' and not keepsPlace then redis.call('DEL', KEYS[2]) end
if ARGV[${answer}] then redis.call('SET', KEYS[3], ARGV[${answer}], 'PX', ARGV[${answer + 1}]) end
if ARGV[8] ~= '' then redis.call('PUBLISH', ARGV[8], ARGV[9] .. text .. ARGV[10]) end
return text
`;

/**
 * Stores a record if its guard holds, voids the lease, and tells other instances: one atomic step. A tombstone stored under a
 * lease only keeps the place of a value that is on its way elsewhere, so the lease stays until that is there.
 *
 * KEYS  entry, lease, request memory
 * ARGV  1 guard: none | ordered | version | seen | newer | lease   2 version proposed   3 version seen   4 lease token
 *       5 header after the version                6 value                 7 milliseconds to keep (0: for ever)
 *       8 channel ("" to tell nobody)             9, 10 message before and after the version
 *       11 answer to remember (left out: none)    12 milliseconds to remember it
 *       ("seen" is "version" that may also find no record at all)
 * Result: the version stored under, or "version" / "lease" when the guard of that name refused; "have <version>" for "ordered".
 */
export const writeScript = defineScript({
  name: "cache-write",
  keys: 3,
  lua: store(11),
});

/** Longer than a holder of a lock usually leaves between two writes: then SQL is asked once for both. */
const FENCE_KEPT_MS = 600_000;

/**
 * The same under the fence of a lock (see redis-fences.ts). A fence key is `<newest token> <era>`; a new one has token 0. An era is
 * another one in each life of the server, which is asked itself: a command may have been led elsewhere since it was sent, to one
 * that has the key as it was before.
 *
 * KEYS  as above, then 4 fence
 * ARGV  1 to 10 as above   11 token   12 era in which SQL was asked   13 name for a new era   14, 15 as 11, 12 above
 * Result: as above, or "fenced <newest token>", or "forgotten <era>": the fence key is of this other era.
 */
export const fencedWriteScript = defineScript({
  name: "cache-write-fenced",
  keys: 4,
  lua: `
local fence = redis.pcall('GET', KEYS[4])
local newest, era = string.match(type(fence) == 'string' and fence or '', '^(%d+) (%S+)$')
if not era then
  newest, era = '0', ARGV[13]
  redis.call('SET', KEYS[4], '0 ' .. era, 'PX', ${FENCE_KEPT_MS})
end
if tonumber(newest) > tonumber(ARGV[11]) then return 'fenced ' .. newest end
local info = redis.pcall('INFO', 'replication')
local life = type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or ''
local present = era .. '@' .. life
if present ~= ARGV[12] then return 'forgotten ' .. present end
redis.call('SET', KEYS[4], ARGV[11] .. ' ' .. era, 'PX', ${FENCE_KEPT_MS})
${store(14)}`,
});

/**
 * The current stamps of marks, made where they are missing, and kept at least as long as the entry that is about to carry them.
 *
 * KEYS  marks       ARGV  1 stamp for those missing   2 milliseconds to keep (0: for ever)
 * Result: the stamps, in order.
 */
export const stampsScript = defineScript({
  name: "cache-stamps",
  lua: `
local stamps, keep = {}, tonumber(ARGV[2])
for i, mark in ipairs(KEYS) do
  local stamp = redis.call('GET', mark)
  if not stamp then
    stamp = ARGV[1]
    if keep == 0 then redis.call('SET', mark, stamp) else redis.call('SET', mark, stamp, 'PX', keep) end
  else
    local left = redis.call('PTTL', mark)
    if left >= 0 then
      if keep == 0 then redis.call('PERSIST', mark) elseif left < keep then redis.call('PEXPIRE', mark, keep) end
    end
  end
  stamps[i] = stamp
end
return stamps
`,
});

/**
 * Raises marks to given stamps: those of the layer that is the truth of the namespace.
 *
 * KEYS  marks       ARGV  1 milliseconds to keep (0: for ever)   2 channel ("" to tell nobody)
 *                         3.. for each mark: stamp, message before and after the stamp
 * Result: the stamps after, in order.
 */
export const raiseScript = defineScript({
  name: "cache-raise",
  lua: `
local stamps, keep = {}, tonumber(ARGV[1])
for i, mark in ipairs(KEYS) do
  local stamp, have = ARGV[3 * i], redis.call('GET', mark)
  if have and tonumber(have) > tonumber(stamp) then stamp = have end
  if stamp ~= have then redis.call('SET', mark, stamp, 'KEEPTTL') end
  local left = redis.call('PTTL', mark)
  if not have and keep > 0 then redis.call('PEXPIRE', mark, keep)
  elseif left >= 0 and keep == 0 then redis.call('PERSIST', mark)
  elseif left >= 0 and left < keep then redis.call('PEXPIRE', mark, keep) end
  stamps[i] = stamp
  if ARGV[2] ~= '' then redis.call('PUBLISH', ARGV[2], ARGV[3 * i + 1] .. stamp .. ARGV[3 * i + 2]) end
end
return stamps
`,
});

/**
 * Gives marks a new stamp, always an odd one (see version.ts). One that is missing is made: no entry needs it, but a value that
 * is being computed must not be stored under it afterwards.
 *
 * KEYS  marks       ARGV  1 stamp   2 milliseconds to keep those missing (0: for ever)   3 channel ("" to tell nobody)
 *                         4.. for each mark: message before and after the stamp
 * Result: how many marks there were.
 */
export const invalidateScript = defineScript({
  name: "cache-invalidate",
  lua: `
local changed = 0
for i, mark in ipairs(KEYS) do
  local stamp, have = tonumber(ARGV[1]), tonumber(redis.call('GET', mark) or '')
  if have then
    if have >= stamp then stamp = have + 1 + have % 2 end
    redis.call('SET', mark, string.format('%.0f', stamp), 'KEEPTTL')
    changed = changed + 1
  elseif ARGV[2] == '0' then
    redis.call('SET', mark, string.format('%.0f', stamp))
  else
    redis.call('SET', mark, string.format('%.0f', stamp), 'PX', ARGV[2])
  end
  if ARGV[3] ~= '' then
    redis.call('PUBLISH', ARGV[3], ARGV[2 * i + 2] .. string.format('%.0f', stamp) .. ARGV[2 * i + 3])
  end
end
return changed
`,
});

/**
 * Ends a lease if it is the one held.
 *
 * KEYS  lease       ARGV  1 token
 */
export const releaseScript = defineScript({
  name: "cache-release",
  keys: 1,
  lua: `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
`,
});

/**
 * Gives a lease to one caller at a time.
 *
 * KEYS  lease       ARGV  1 token   2 milliseconds to live
 * Result: 0 when given, otherwise for how many milliseconds another caller still holds it.
 */
export const leaseScript = defineScript({
  name: "cache-lease",
  keys: 1,
  lua: `
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
local left = redis.call('PTTL', KEYS[1])
return left > 0 and left or 1
`,
});

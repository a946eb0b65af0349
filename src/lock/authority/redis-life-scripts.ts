import { defineScript } from "../../infra/redis-script.ts";
import { GRANTS_PER_EPOCH } from "../record/token.ts";

/*
 * The marker of a partition, a hash: `life` is the life of Redis and the epoch that was begun in it, with a space
 * between them, and `count` how many grants there have been since. While a life is being begun it has neither, but the
 * life that this is `for`, a name for the attempt (`begin`), `since` when, and the epoch that `was` before, if any.
 *
 * A life of Redis is what it calls master_replid. It is another one after each start and after each failover, and a
 * replica that becomes the primary does not keep it; so data that came back, or came from elsewhere, never has the
 * marker of the present life.
 */

/** The smallest count at which an epoch is taken to be used up. */
export const MOST_GRANTS = GRANTS_PER_EPOCH - 1;

const PRESENT = `
local function present()
  local info = redis.pcall('INFO', 'replication')
  if type(info) ~= 'string' or not string.find(info, 'role:master', 1, true) then return nil end
  return string.match(info, 'master_replid:(%w+)')
end
`;

/**
 * So long whoever comes upon a life that another is beginning leaves it to him; then he helps, in an epoch of his own.
 */
const LEFT_TO_ANOTHER_MS = 500;

/**
 * The first half of beginning a life. From here on nothing is granted until the second half.
 *
 * KEYS  1 marker       ARGV  1 the smallest epoch that will do   2 a name for the attempt
 * Result: {"begun", life}: somebody did; {"waiting"}: somebody does; {"unknown"}: the server does not say in which life it
 *         is; {"beginning", the name of the attempt that is to be finished, the epoch of before or 0, maxmemory,
 *         maxmemory_policy}
 */
export const beginScript = defineScript({
  name: "lock-begin",
  keys: 1,
  lua: `${PRESENT}
local now = present()
if not now then return {'unknown'} end
local life, count, wanted, begin, since, was =
  unpack(redis.call('HMGET', KEYS[1], 'life', 'count', 'for', 'begin', 'since', 'was'))
if life then
  local is, epoch = string.match(life, '^(%w+) (%d+)$')
  was = epoch
  local isGood = is == now and tonumber(epoch) >= tonumber(ARGV[1]) and tonumber(count) < ${MOST_GRANTS}
  if isGood then return {'begun', life} end
end
local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
if life or wanted ~= now then
  begin = ARGV[2]
  redis.call('DEL', KEYS[1])
elseif ms >= tonumber(since) and ms - since < ${LEFT_TO_ANOTHER_MS} then
  return {'waiting'}
end
was = was or '0'
redis.call('HSET', KEYS[1], 'for', now, 'begin', begin, 'since', ms, 'was', was)
local memory = redis.call('INFO', 'memory')
local limit, policy = string.match(memory, 'maxmemory:(%d+)'), string.match(memory, 'maxmemory_policy:(%S+)')
return {'beginning', begin, was, limit or '0', policy or ''}
`,
});

/**
 * The second half, with an epoch that was taken after the first. Whoever has granted in a larger one since then
 * finished this attempt or began another; then this is gone from the marker, also where all that he did was lost.
 *
 * KEYS  1 marker       ARGV  1 the name of the attempt   2 the epoch
 * Result: the life that has begun, or "" if the attempt is gone
 */
export const finishScript = defineScript({
  name: "lock-finish",
  keys: 1,
  lua: `${PRESENT}
local wanted, begin = unpack(redis.call('HMGET', KEYS[1], 'for', 'begin'))
if not wanted or wanted ~= present() or begin ~= ARGV[1] then return '' end
local life = wanted .. ' ' .. ARGV[2]
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'life', life, 'count', 0)
return life
`,
});

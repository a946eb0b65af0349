import { defineScript } from "../../infra/redis-script.ts";
import { GRANTS_PER_EPOCH } from "../record/token.ts";

/*
 * The marker of a partition, a hash: `life` is the life of Redis and the epoch that was begun in it, with a space between them, and
 * `count` how many grants there have been since. While a life is being begun it has neither, but the life that this is `for`, and
 * a name for the attempt (`begin`).
 *
 * A life of Redis is what it calls master_replid. It is another one after each start and after each failover, and a replica that
 * becomes the primary does not keep it; so data that came back, or came from elsewhere, never has the marker of the present life.
 */

/** The smallest count at which an epoch is taken to be used up. */
export const MOST_GRANTS = GRANTS_PER_EPOCH - 1;

const PRESENT = `
local function present()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.find(info, 'role:master', 1, true) and string.match(info, 'master_replid:(%w+)')
end
`;

/**
 * The first half of beginning a life. From here on nothing is granted until the second half.
 *
 * KEYS  1 marker       ARGV  1 the smallest epoch that will do   2 a name for the attempt
 * Result: {"begun", life}: somebody did; {"unknown"}: the server does not say in which life it is; {"beginning", the name of the
 *         attempt that is to be finished, maxmemory, maxmemory_policy}
 */
export const beginScript = defineScript({
  name: "lock-begin",
  keys: 1,
  lua: `${PRESENT}
local now = present()
if not now then return {'unknown'} end
local life, count, wanted, begin = unpack(redis.call('HMGET', KEYS[1], 'life', 'count', 'for', 'begin'))
if life then
  local is, epoch = string.match(life, '^(%w+) (%d+)$')
  local isGood = is == now and tonumber(epoch) >= tonumber(ARGV[1]) and tonumber(count) < ${MOST_GRANTS}
  if isGood then return {'begun', life} end
end
if life or wanted ~= now then
  begin = ARGV[2]
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'for', now, 'begin', begin)
end
local memory = redis.call('INFO', 'memory')
return {'beginning', begin, string.match(memory, 'maxmemory:(%d+)') or '0', string.match(memory, 'maxmemory_policy:(%S+)') or ''}
`,
});

/**
 * The second half, with an epoch that was taken after the first. Whoever has granted in a larger one since then finished this attempt
 * before; or all that was lost, and this attempt with it.
 *
 * KEYS  1 marker       ARGV  1 the name of the attempt   2 the epoch
 * Result: the life that has begun, in this epoch or a larger one; "" if the attempt was lost
 */
export const finishScript = defineScript({
  name: "lock-finish",
  keys: 1,
  lua: `${PRESENT}
local life, wanted, begin = unpack(redis.call('HMGET', KEYS[1], 'life', 'for', 'begin'))
if not wanted or wanted ~= present() or begin ~= ARGV[1] then return '' end
if life and tonumber(string.match(life, '%d+$')) >= tonumber(ARGV[2]) then return life end
life = wanted .. ' ' .. ARGV[2]
redis.call('HSET', KEYS[1], 'life', life, 'count', 0)
return life
`,
});

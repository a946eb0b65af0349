import { defineScript } from "../../infra/redis-script.ts";
import { GRANTS_PER_EPOCH } from "../record/token.ts";

/*
 * The marker of a partition, a hash: `life` in which its `epoch` was begun and how many grants that has seen (`count`). While a life
 * is being begun it has no `life`, but the one it is `for`, and a name for the attempt (`begin`).
 *
 * A life is what the server calls master_replid. It is another one after each start and after each failover, and a replica does not
 * keep it when it becomes the primary; so data that came back, or came from another server, never has the marker of the present life.
 */

export const LIFE = `
local function lifeNow()
  return string.match(redis.call('INFO', 'replication'), 'role:master.*master_replid:(%w+)')
end
local function isBegun(life, epoch, count, floor)
  return life and life == lifeNow() and tonumber(epoch) >= tonumber(floor) and tonumber(count) < ${GRANTS_PER_EPOCH - 1}
end
`;

/**
 * The first half of beginning a life. From here on nothing is granted until the second half, unless the marker is lost meanwhile.
 *
 * KEYS  1 marker       ARGV  1 the smallest epoch that will do   2 a name for the attempt
 * Result: {"begun"}: somebody did; {"unknown"}: the server does not say which life it is in; {"beginning", the name of the attempt
 * that is to be finished, `maxmemory`, `maxmemory_policy`}
 */
export const beginScript = defineScript({
  name: "lock-begin",
  keys: 1,
  lua: `${LIFE}
local now = lifeNow()
if not now then return {'unknown'} end
local life, epoch, count, wanted, begin = unpack(redis.call('HMGET', KEYS[1], 'life', 'epoch', 'count', 'for', 'begin'))
if isBegun(life, epoch, count, ARGV[1]) then return {'begun'} end
if life or wanted ~= now then
  begin = ARGV[2]
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'for', now, 'begin', begin)
end
local memory = redis.call('INFO', 'memory')
return {'beginning', begin, string.match(memory, 'maxmemory:(%d+)') or '', string.match(memory, 'maxmemory_policy:(%S+)') or ''}
`,
});

/**
 * The second half, with an epoch that was taken after the first: whoever granted anything since then in a larger one has either
 * finished this attempt before, or what he did was lost together with the attempt.
 *
 * KEYS  1 marker       ARGV  1 the name of the attempt   2 the epoch
 * Result: 1 if the life has begun, in this epoch or a larger one; 0 if the attempt was lost
 */
export const finishScript = defineScript({
  name: "lock-finish",
  keys: 1,
  lua: `${LIFE}
local wanted, begin, epoch = unpack(redis.call('HMGET', KEYS[1], 'for', 'begin', 'epoch'))
if not wanted or wanted ~= lifeNow() or begin ~= ARGV[1] then return 0 end
if not epoch or tonumber(epoch) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'life', wanted, 'epoch', ARGV[2], 'count', 0)
end
return 1
`,
});

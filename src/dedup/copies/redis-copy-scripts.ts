import { defineScript } from "../../infra/redis-script.ts";
import { AT, HEAD, NAME, NUMBER } from "./copy-bytes.ts";

/**
 * Stores a copy, unless it comes too late, or what is there is of a younger claim, or was forgotten. What a copy looks like is said in
 * copy-bytes.ts; what cannot be read, or is of another truth, is as nothing.
 *
 * KEYS  copy    ARGV  1 when it is too late, by the clock of this server   2 truth, life and generation, as in the copy   3 token
 *                     4 milliseconds to live   5 the copy
 * Result: now, and 1 if it came too late
 */
export const fillScript = defineScript({
  name: "dedup-fill",
  keys: 1,
  lua: `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[1]) then return {now, 1} end
local there = redis.pcall('GETRANGE', KEYS[1], ${AT.truth}, ${AT.token + NUMBER - 1})
if type(there) == 'string' and string.sub(there, 1, ${NAME}) == string.sub(ARGV[2], 1, ${NAME}) then
  local token, mine = tonumber(string.sub(there, -${NUMBER})), tonumber(ARGV[3])
  if token and token > mine then return {now, 0} end
  if token and token == mine then
    local isForgotten = redis.call('STRLEN', KEYS[1]) == ${HEAD}
    if isForgotten or string.sub(there, 1, ${AT.token - AT.truth}) == ARGV[2] then return {now, 0} end
  end
end
redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[4])
return {now, 0}
`,
});

import { defineScript } from "../../infra/redis.ts";
import { GRANTS_PER_EPOCH } from "../record/token.ts";

/**
 * What one of the masters does. To it a lock is a register, a hash of
 *
 *   token, rev, id, text   the newest version written here: of which grant, how often changed, the attempt that made it, what it says
 *   until, ended, ended_at until when it blocks others by this master's clock, unless it was ended, and when it was
 *   instance               who holds it
 *   vote, vote_until       the attempt that may write the next grant, and until when
 *   wanted, rival, rival_until  until when somebody waits, and which instance that is not the holder's
 *
 * The rules of locks are not here but in record/decide.ts: masters only see to it that nobody writes over what is in force.
 *
 * KEYS: the register, the marker of this master's life (run, epoch, from, floor), the attempt that the order names, if it does.
 * Each script begins with the run id that the caller knows. {-2, sign}: the master is in a life that has no epoch yet. The sign is
 * put up when that is seen first, and goes with all else when the master is flushed: who begins the life has to name it.
 */
const BEGIN = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = redis.call('HMGET', KEYS[2], 'run', 'epoch', 'from', 'floor')
if life[1] ~= ARGV[1] then
  local sign = redis.call('HGET', KEYS[2], 'sign') or ''
  if string.sub(sign, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then
    sign = ARGV[1] .. ' ' .. time[1] .. '.' .. time[2]
    redis.call('HSET', KEYS[2], 'sign', sign)
  end
  return {-2, sign}
end
local from = tonumber(life[3])
local function number(text) return tonumber(text or '') or 0 end
local is = redis.call('HMGET', KEYS[1], 'token', 'rev', 'id', 'text', 'until', 'ended', 'ended_at', 'instance',
  'vote', 'vote_until', 'wanted', 'rival', 'rival_until')
local token, rev, id, till = number(is[1]), number(is[2]), is[3] or '', number(is[5])
local live = token > 0 and is[6] == '0' and till > now
local vote = is[9] or ''
if number(is[10]) <= now then vote = '' end
local wanted, rival, rival_until = number(is[11]), is[12] or '', number(is[13])
`;

/** What ASK answers when the attempt may write. */
export const CLAIMED = 1;

/**
 * Reads the register, and claims it for an attempt unless it is in force or claimed.
 * ARGV: run, attempt (empty: only read), for how long, instance, whether it waits, for how long it is taken to.
 * Result: {1 claimed, 0 only read, 2 in force, 3 claimed by another, -1 does not vote yet}, ms by its clock, epoch, floor, token,
 * rev, id, text, ms it blocks others for yet, whether it was ended, ms since then, ms it is wanted for yet, rival, ms that waits
 * yet, what the attempt meant (empty: not remembered).
 */
export const ASK = defineScript({
  name: "redlock-ask",
  lua: `${BEGIN}
if now < from then return {-1, from - now} end
local status = 0
if ARGV[2] ~= '' then
  if live then
    status = 2
    if ARGV[5] == '1' then
      local known = now + ARGV[6] * 0.75
      local isRival = ARGV[4] ~= is[8]
        and (rival == '' or rival_until <= now or (rival == ARGV[4] and rival_until < known))
      if isRival then
        rival, rival_until = ARGV[4], now + ARGV[6]
        redis.call('HSET', KEYS[1], 'rival', rival, 'rival_until', rival_until)
      end
      if wanted < known then
        wanted = now + ARGV[6]
        redis.call('HSET', KEYS[1], 'wanted', wanted)
      end
    end
  elseif vote ~= '' and vote ~= ARGV[2] then
    status = 3
  else
    status = 1
    redis.call('HSET', KEYS[1], 'vote', ARGV[2], 'vote_until', now + ARGV[3])
    if token == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
  end
end
local attempt = KEYS[3] and redis.call('GET', KEYS[3]) or ''
return {status, now, number(life[2]), number(life[4]), token, rev, id, is[4] or '', till - now, is[6] == '1' and 1 or 0,
  now - number(is[7]), wanted - now, rival, rival_until - now, attempt}
`,
});

/** What follows the run id when a register is only read. */
export const READ_ONLY = ["", 0, "", 0, 0];

export const SETTLE = "settle";
export const AMEND = "amend";
export const HEAL = "heal";
export const RETRACT = "retract";

/**
 * Writes a version.
 *   settle   a new grant: by who has the claim, over nothing in force, with a token larger than any here and
 *            than any that was granted before this life began.
 *   amend    a change of a grant in force. Where this master missed it: if nothing else is in force or claimed.
 *   heal     a version that a majority has: over whatever is older.
 *   retract  an end of a grant that was not settled on a majority: only where it got to. Gives up the claim in any case.
 * ARGV: run, kind, token, rev, id, text, for how long, ended (0 or 1), instance, whether the rival has had its turn,
 * what the attempt means, for how long it is remembered (0: nothing to remember, -1: forget it), for how long the rest is.
 * Result: {whether it votes, whether it is written, ms it is in force for yet, ms it is wanted for yet, token here, rev here}.
 */
export const PUT = defineScript({
  name: "redlock-put",
  lua: `${BEGIN}
local kind, newToken, newRev, newId = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local same = token == newToken and id == newId
local ok = false
if kind == 'settle' then
  ok = vote == newId and not live and newToken > token and newToken > life[2] * ${GRANTS_PER_EPOCH}
elseif kind == 'amend' then
  if token == newToken then ok = same and live and newRev > rev
  else ok = newToken > token and not live and (vote == '' or vote == newId) end
elseif kind == 'heal' then
  ok = newToken > token or (token == newToken and (not same or newRev > rev))
else
  ok = same and newRev > rev
  if not ok and vote == newId then redis.call('HDEL', KEYS[1], 'vote') end
end
if ok then
  local newTill = now + ARGV[7]
  if same and till > newTill then newTill = till end
  till = newTill
  redis.call('HSET', KEYS[1], 'token', ARGV[3], 'rev', ARGV[4], 'id', newId, 'text', ARGV[6], 'until', till,
    'ended', ARGV[8], 'ended_at', now, 'instance', ARGV[9])
  if vote == newId then redis.call('HDEL', KEYS[1], 'vote') end
  if ARGV[10] == '1' then redis.call('HDEL', KEYS[1], 'rival', 'rival_until') end
  redis.call('PEXPIRE', KEYS[1], till - now + ARGV[13])
  if newToken > number(life[4]) then redis.call('HSET', KEYS[2], 'floor', ARGV[3]) end
  local remembered = tonumber(ARGV[12])
  if remembered > 0 then redis.call('SET', KEYS[3], ARGV[11], 'PX', remembered)
  elseif remembered < 0 then redis.call('DEL', KEYS[3]) end
  token, rev = newToken, newRev
end
return {now >= from and 1 or 0, ok and 1 or 0, till - now, wanted - now, token, rev}
`,
});

/** Gives a claim up. ARGV: run, attempt. Result: {1}. */
export const DROP = defineScript({
  name: "redlock-drop",
  lua: `${BEGIN}
if vote == ARGV[2] then redis.call('HDEL', KEYS[1], 'vote') end
return {1}
`,
});

/**
 * Begins a life: the master votes after a while, and in an epoch that is larger than any before. The first to say so is right. Who
 * comes late, with what was so before the master forgot again, finds another sign.
 * KEYS: the marker. ARGV: run, sign, epoch, for how long it does not vote. Result: {whether this call began it}.
 */
export const ENROL = defineScript({
  name: "redlock-enrol",
  keys: 1,
  lua: `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = redis.call('HMGET', KEYS[1], 'run', 'sign')
if life[1] == ARGV[1] or life[2] ~= ARGV[2] then return {0} end
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'epoch', ARGV[3], 'from', now + ARGV[4])
return {1}
`,
});

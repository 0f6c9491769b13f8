-- Purpose: one step in the life of a shard's epoch, so that of many who find its counters lost, or
--   rebuilt, one acts and the others learn of it.
-- KEYS: 1 the shard's meta hash.
-- ARGV: step, an epoch, and by step:
--     adopt: "1" if the shard's counters are decided by at once, rebuilt or not: makes this the
--       epoch if there is none;
--     renew: another epoch: makes that the epoch, at stage LOST, if the first is it still;
--     advance: a stage, and "*" or the stage that it has to have: brings the epoch, if it is it
--       still, to a stage that is later than its own.
-- Returns: the epoch then, and "1" if the step has changed it.
-- Invariant: an epoch's stages are, in the field `open`, none (LOST), s (SEEN), f (FILLED) and
--   1 (OPEN), and follow each other in this order. Numbers given out in older epochs stay.
-- Cost: HMGET, HSET, HDEL.

local RANK = { [''] = 0, s = 1, f = 2, ['1'] = 3 }
local step, named, more, after = ARGV[1], ARGV[2], ARGV[3], ARGV[4] or '*'
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'open')
local epoch, stage = meta[1], meta[2] or ''
local changed = '0'

if step == 'adopt' then
  if not epoch then
    redis.call('HSET', KEYS[1], 'epoch', named)
    redis.call('HDEL', KEYS[1], 'open')
    epoch, stage, changed = named, '', '1'
  end
  if more == '1' and stage ~= '1' then
    redis.call('HSET', KEYS[1], 'open', '1')
    changed = '1'
  end
elseif step == 'renew' then
  if epoch == named then
    redis.call('HSET', KEYS[1], 'epoch', more)
    redis.call('HDEL', KEYS[1], 'open')
    epoch, changed = more, '1'
  end
elseif epoch == named and RANK[more] > (RANK[stage] or 0) and (after == '*' or after == stage) then
  redis.call('HSET', KEYS[1], 'open', more)
  changed = '1'
end
return { epoch or '', changed }

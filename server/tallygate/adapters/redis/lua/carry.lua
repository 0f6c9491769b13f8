-- Purpose: one step of a tenant's way from one shard to another. A step of the past changes
--   nothing, so that several processes may carry a tenant at once, and a slow one does no harm.
-- KEYS: 1 the moves of the shard, a hash of tenants; then the shard's keys to write or to drop.
-- ARGV: tenant, version of the catalog that moves it, step, and by step:
--     l (has left), a (arrives), d (is done): milliseconds for which the moves are kept;
--     c (copy): per key: "d" with a dump or "s" with a string, ms left to live ("0": for ever), and
--       the dump or string;
--     x (drop): nothing.
-- Returns: the tenant's move as it is then, VERSION and l, a or d; for c and x the number of keys.
-- Invariant: keys are written only while the tenant arrives, when nothing else may change them, and
--   dropped only where it has left.
-- Cost: HGET, and per key a RESTORE, a SET or an UNLINK: the caller bounds them.

local tenant, version, step = ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HGET', KEYS[1], tenant) or ''
local known_version = tonumber(string.match(known, '^(%d+)') or '0')

if step == 'c' then
  if known ~= version .. ' a' then
    return 0
  end
  for index = 2, #KEYS do
    local form, left, content = ARGV[index * 3 - 2], ARGV[index * 3 - 1], ARGV[index * 3]
    if form == 'd' then
      redis.call('RESTORE', KEYS[index], left, content, 'REPLACE')
    else
      redis.call('SET', KEYS[index], content, 'PX', left)
    end
  end
  return #KEYS - 1
end
if step == 'x' then
  if known ~= version .. ' l' then
    return 0
  end
  for index = 2, #KEYS do
    redis.call('UNLINK', KEYS[index])
  end
  return #KEYS - 1
end

local newer = known_version < tonumber(version)
if newer or (step == 'd' and known == version .. ' a') then
  known = version .. ' ' .. step
  redis.call('HSET', KEYS[1], tenant, known)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return known

-- Purpose: decide operations against their limits, debit all or none of each, and append what is
--   accepted to the shard's stream, as one atomic step. Specified by domain/account.py.
-- KEYS: 1 the shard's meta hash, 2 its stream, 3 its moves (carry.lua); then, each once, records of
--   operations, of reservations and of refunds, and per account its hash and its holds.
-- ARGV: now_us ("0": this server's clock), epoch, source id with its epoch, a number known to be
--   given out under it ("0": none), operation memory in ms, length of the account prefix, number of
--   operations; then per operation:
--     mode, index of its operation key ("0": none), fingerprint, event time in us ("0": now),
--     deadline in us ("0": none), number of events, payload, reject reason, number of charges, the
--     charges as limits.lua has them, and by mode:
--     c (consume), r (record), k (check), j (reject), z (reset): nothing;
--     v (reserve): index of the reservation's key, its id, ttl in us;
--     m (commit), l (release), p (settle): index of the reservation's key, its id, payload and
--       number of events of the excess, "1" if the excess is recorded whatever the limits say,
--       number of shares; per share: index of its account, its text, and per piece units used up
--       and units given back;
--     x (extend): index, id, ttl in us, number of shares; per share: index, text;
--     f (refund): index of the event's refunded units, units, units at most, "1" if the charges
--       come back with the last unit only;
--     g (grant): units owed, number of grants; per grant: seq, priority, starts, expires, granted,
--       remaining;
--     b (rebuild): per charge, number of slots; per slot: place, units.
-- Returns: the last number given out under the source id, then one string per operation:
--     G;at;first_seq[;reading]*          granted      P;source id;... the first answer to a repeat
--     Q;at;first_seq;index[;reading]*    settled, the excess refused     p;... as P
--     R;at;refusing index;retry_us[;reading]*  refused (retry -1: never)
--     U reused   S;now stale windows   O;index overflow   B broken value
--     T;state the reservation is not held   M it holds something else   H too many are held
--     X;left the refund exceeds   D;now the deadline has passed
--     V the tenant's counters are, or will be, elsewhere   F the counters are not rebuilt yet
--   or, for all of them together, with nothing done: E;epoch other epoch   L;last numbers were lost
--   A reading is limit_id,meter,state,used,limit,remaining,resets_at.
-- Invariant: nothing is written before every operation is evaluated, and XADD is the first write:
--   what can fail, for memory or a wrong type, fails with nothing changed. Lua does not roll back.
-- Cost: HMGET of meta, EXISTS of the moves, per operation GET and SET of its record, per account
--   HMGET and HSET, one XADD; PEXPIREAT about once an hour per account; a reservation adds GET and
--   SET of its record and ZADD or ZREM per account. Loops are bounded by the caller's batch.

local answers = {}
local PLAIN = { c = true, r = true, k = true }

local charged = {}
charged[0] = { labels = '', verdicts = {}, spots = '<' }

local function take_operation()
  local head = take()
  local mode, key, event_time, deadline, events, template, place = unpacked('<c1HddHH', head)
  local charges = charged[template]
  if not charges then
    charges = decode_charges(ARGV[3 + template])
    charged[template] = charges
  end
  local spots = { unpacked(charges.spots, head, place) }
  for index = 1, #charges do
    local charge = charges[index]
    charge.key, charge.amount = spots[2 * index - 1], spots[2 * index]
  end
  local operation = {
    mode = mode, asks = mode, key = key, deadline = deadline, events = events,
    fingerprint = take(), payload = take(), charges = charges,
    used_at = (event_time == 0 or event_time > now) and now or event_time,
  }
  if not PLAIN[mode] then
    rare().detail(operation)
  end
  return operation
end

local function in_reach(operation, charges)
  for index = 1, #charges do
    local charge = charges[index]
    if charge.kind == 'w' and (now < charge.starts or now >= charge.ends) then
      return false
    end
  end
  return not (operation.slots and rare().ahead(operation))
end

-- Reads the counters that charges need; says whether all of them could be read.
local function touch(charges)
  local count = #charges
  for index = 1, count do
    local charge = charges[index]
    local key = charge.key
    local account = accounts[key]
    local fields = account and account.fields
    if not fields or fields[charge.field] == nil then
      local names, size = {}, 0
      for number = index, count do
        local other = charges[number]
        if other.key == key and (not fields or fields[other.field] == nil) then
          size = size + 1
          names[size] = other.field
        end
      end
      if not load_fields(key, names) then
        return false
      end
    end
    local next_hold = accounts[key].next_hold
    if next_hold ~= 0 and next_hold <= now and not rare().expire(key) then
      return false
    end
  end
  return true
end

local moves_known = call('EXISTS', KEYS[3]) == 1

local function decide(operation)
  if moves_known and rare().has_moved(operation) then
    return 'V'
  end
  local known = operation.key > 0 and recall(operation)
  if known then
    return known
  end
  if operation.deadline > 0 and operation.deadline < now then
    return 'D;' .. whole(now)
  end
  if fenced and rare().is_fenced(operation) then
    return 'F'
  end
  local shut = operation.reservation and rare().closed(operation)
  if shut then
    return shut
  end
  local charges = operation.charges
  if not in_reach(operation, charges) then
    return 'S;' .. whole(now)
  end
  if not touch(charges) then
    return 'B'
  end
  if operation.shares then
    if not rare().touch_shares(operation) then
      return 'B'
    end
    local lost = rare().not_held(operation)
    if lost then
      return lost
    end
  end
  local decided = not PLAIN[operation.mode] and rare().modes[operation.mode] or charge_all
  return decided(operation)
end

for index = 1, operations do
  answers[index + 1] = decide(take_operation())
end

if #entry > 0 then
  call('XADD', KEYS[2], '*', 't', whole(now), 's', source, 'e', epoch, unpack(entry))
  call('HSET', KEYS[1], source, whole(sequence))
end
for index, account in pairs(accounts) do
  write_account(index, account)
end
if is_rare then
  rare().write_reservations()
end
for index, left_ms in pairs(new_records) do
  call('SET', KEYS[index], records[index], 'PX', left_ms)
end
for index, units in pairs(tallies) do
  call('SET', KEYS[index], whole(units), 'PX', memory_ms)
end

answers[1] = sequence
return answers

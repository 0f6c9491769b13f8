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
--     t (late): the calls that given.lua records; m, l and p have these at their end, too;
--     b (rebuild): per charge, number of slots; per slot: place, units.
-- Returns: the last number given out under the source id, then one string per operation:
--     G;at;first_seq[;reading]*          granted      P;source id;... the first answer to a repeat
--     Q;at;first_seq;index[;reading]*    settled, the excess refused     p;... as P
--     R;at;refusing index;retry_us[;reading]*  refused (retry -1: never)
--     U reused   S;now stale windows   O;index overflow   B broken value
--     T;state the reservation is not held   M it holds something else   H too many are held
--     X;left the refund exceeds   D;now the deadline has passed
--     K;place,how[;place,how]*  of its calls, these are known: p repeat, u other content, b broken
--     V the tenant's counters are, or will be, elsewhere   F the counters are not rebuilt yet
--   or, for all of them together, with nothing done: E;epoch other epoch   L;last numbers were lost
--   A reading is limit_id,meter,state,used,limit,remaining,resets_at.
-- Invariant: nothing is written before every operation is evaluated, and XADD is the first write:
--   what can fail, for memory or a wrong type, fails with nothing changed. Lua does not roll back.
-- Cost: HMGET of meta, EXISTS of the moves, per operation GET and SET of its record, per account
--   HMGET and HSET, one XADD; PEXPIREAT about once an hour per account; a reservation adds GET and
--   SET of its record and ZADD or ZREM per account; a call that it records a SET. Loops are
--   bounded by the caller's batch.

local answers = {}

-- What a mode has beside the rest.
local DETAIL = {}

function DETAIL.v(operation)
  operation.reservation, operation.id, operation.ttl = take_number(), take(), take_number()
end

function DETAIL.m(operation)
  operation.reservation, operation.id = take_number(), take()
  operation.excess, operation.excess_events = take(), take_number()
  operation.asks = take() == '1' and 'r' or 'c'
  operation.shares = {}
  for index = 1, take_number() do
    local share = { key = take_number(), text = take(), used = {}, back = {} }
    share.pieces = decode_pieces(share.text)
    for number = 1, #share.pieces do
      share.used[number], share.back[number] = take_number(), take_number()
    end
    operation.shares[index] = share
  end
  operation.given = take_given()
end

function DETAIL.t(operation)
  operation.asks, operation.given = 'r', take_given()
end

DETAIL.l, DETAIL.p = DETAIL.m, DETAIL.m

function DETAIL.x(operation)
  DETAIL.v(operation)
  operation.shares = {}
  for index = 1, take_number() do
    operation.shares[index] = { key = take_number(), text = take(), pieces = {} }
  end
end

function DETAIL.f(operation)
  operation.tally = take_number()
  operation.units, operation.units_max = take_number(), take_number()
  operation.counted = take() == '1'
end

function DETAIL.g(operation)
  operation.owed, operation.grants = take_number(), {}
  for index = 1, take_number() do
    operation.grants[index] = {
      seq = take_number(), priority = take_number(), starts = take_number(),
      expires = take_number(), granted = take_number(), remaining = take_number(),
    }
  end
end

function DETAIL.b(operation)
  operation.slots = {}
  for index = 1, #operation.charges do
    operation.slots[index] = {}
    for number = 1, take_number() do
      operation.slots[index][number] = { take_number(), take_number() }
    end
  end
end

local function take_operation()
  local operation = {
    mode = take(), key = take_number(), fingerprint = take(), event_time = take_number(),
    deadline = take_number(), events = take_number(), payload = take(), reason = take(),
    charges = {},
  }
  operation.asks = operation.mode
  for index = 1, take_number() do
    operation.charges[index] = take_charge()
  end
  if DETAIL[operation.mode] then
    DETAIL[operation.mode](operation)
  end
  operation.used_at = operation.event_time == 0 and now or math.min(operation.event_time, now)
  return operation
end

local function in_reach(operation)
  for index, charge in ipairs(operation.charges) do
    if charge.kind == 'w' then
      if now < charge.starts or now >= charge.ends then
        return false
      end
      -- A window that is still to come has no counter yet.
      for _, slot in ipairs(operation.slots and operation.slots[index] or {}) do
        if slot[1] > now then
          return false
        end
      end
    end
  end
  return true
end

-- Says whether an operation has to wait until counters that were lost are rebuilt: what they could
-- refuse, or would tell of, or what takes from them units that they may not hold yet. Before the
-- shard is SEEN its balances lack their grants: what was used of them then would be free.
local is_fenced = false
if fenced then
  -- Made where they are needed only: a script's tables and functions are made anew by each call.
  local always = { k = true, f = true, z = true }
  local known_only = { m = true, l = true, p = true, x = true }
  local gates = { c = true, v = true }
  local giving = { g = true, b = true, j = true }
  function is_fenced(operation)
    if always[operation.mode] then
      return true
    end
    if known_only[operation.mode] then
      local found = find_reservation(operation.reservation)
      if found == false or (found and now >= found.ends) then
        return true
      end
    end
    local gated, taking = gates[operation.asks], grantless and not giving[operation.mode]
    for _, charge in ipairs(operation.charges) do
      local prepaid = taking and charge.kind == 'b'
      if charge.amount > 0 and (prepaid or (gated and charge.on_exceed == 'r')) then
        return true
      end
    end
    return false
  end
end

-- Says whether a tenant's counters are not here, or not yet. What is not remembered may pass all
-- the same: its events belong to the ledger, whichever stream they take.
local moves_known = redis.call('EXISTS', KEYS[3]) == 1
local function has_moved(operation)
  local named = operation.key > 0 and operation.key or operation.reservation
  if not named then
    return false
  end
  local tenant = string.match(string.sub(KEYS[named], prefix_length + 1), '^[^ ]+')
  local move = redis.call('HGET', KEYS[3], tenant)
  return move and string.sub(move, -1) ~= 'd'
end

-- Says why a reservation cannot be made, settled or extended, nil when it can.
local function closed(operation)
  local found = find_reservation(operation.reservation)
  if found == nil then
    return 'B'
  end
  if found and now >= found.ends then
    found = false
  end
  if operation.mode == 'v' then
    return found and 'U' or nil
  elseif not found then
    return 'T;n'
  elseif found.state ~= 'h' then
    return 'T;' .. found.state
  end
  if found.expires <= now then
    return 'T;e'
  end
  local told = {}
  for index, share in ipairs(operation.shares) do
    told[index] = share_record(share.key, share.text)
  end
  return table.concat(told) ~= found.shares and 'M' or nil
end

local function touch(operation)
  local wanted = {}
  for _, charge in ipairs(operation.charges) do
    wanted[charge.key] = wanted[charge.key] or {}
    table.insert(wanted[charge.key], charge.field)
  end
  for _, share in ipairs(operation.shares or {}) do
    wanted[share.key] = names_of(share.pieces, wanted[share.key] or {})
  end
  for index, names in pairs(wanted) do
    if not load_fields(index, names) or not expire(index) then
      return false
    end
  end
  return true
end

local function decide(operation)
  if moves_known and has_moved(operation) then
    return 'V'
  end
  local known = operation.key > 0 and recall(operation)
  if known then
    return known
  end
  if operation.deadline > 0 and operation.deadline < now then
    return 'D;' .. whole(now)
  end
  if is_fenced and is_fenced(operation) then
    return 'F'
  end
  local shut = operation.reservation and closed(operation)
  if shut then
    return shut
  end
  if not in_reach(operation) then
    return 'S;' .. whole(now)
  end
  if not touch(operation) then
    return 'B'
  end
  local lost = operation.shares and not_held(operation)
    or operation.given and known_among(operation.given)
  return lost or (MODE[operation.mode] or charge_all)(operation)
end

for index = 1, tonumber(ARGV[7]) do
  answers[index] = decide(take_operation())
end

if #entry > 0 then
  redis.call('XADD', KEYS[2], '*', 't', whole(now), 's', source, 'e', epoch, unpack(entry))
  redis.call('HSET', KEYS[1], source, whole(sequence))
end
for index, account in pairs(accounts) do
  write_account(index, account)
end
for index in pairs(changed_reservations) do
  write_reservation(index)
end
for index, record in pairs(new_records) do
  local left_ms = ceil_div(record[2] - now, 1000)
  redis.call('SET', KEYS[index], record[1], 'PX', whole(left_ms))
end
write_given()
for index, units in pairs(tallies) do
  redis.call('SET', KEYS[index], whole(units), 'PX', whole(memory_us / 1000))
end

return { whole(sequence), unpack(answers) }

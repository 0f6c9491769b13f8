-- Purpose: decide operations against their limits, debit all or none of each, and append what is
--   accepted to the shard's stream, as one atomic step. Specified by domain/account.py.
-- KEYS: 1 the shard's meta hash, 2 its stream, 3 its moves (carry.lua); then, each once, records of
--   operations, of reservations and of refunds, and per account its hash and its holds.
-- ARGV: 1 packed as struct `<dddHHHHc0Hc0`: now_us (0: this server's clock), a number known to be
--   given out under the source (0: none), operation memory in ms, length of the account prefix,
--   number of operations and of templates, epoch, source id with its epoch; then the templates
--   (limits.lua); then per operation:
--     packed as `<cHHddHH`, mode, index of its operation key (0: none) and of that of the key's
--     stem (0: none), event time in us (0: now), deadline in us (0: none), number of events, which
--     template its charges have (0: none), and per charge as `Hd` the index of its account and its
--     amount; fingerprint; payload; and by mode as text:
--     c (consume), r (record), k (check), z (reset): nothing; j (reject): the reason;
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
-- Returns: the last number given out under the source id, then per operation a letter and more:
--     G granted   Q settled, the excess refused   R refused: packed as `cddd` the letter, the time,
--       and two numbers, G the first event's number, Q that and the refusing charge, R the refusing
--       charge and the wait in us (-1: never); then in the same way each reading: state, used,
--       limit, resets_at
--     P, p  the first answer to a repeat, G or Q: source id and labels, each with its size before
--       it, and that answer; a label is LIMIT,METER, and ";" is between them
--     S;now stale windows   O;index overflow   T;state the reservation is not held   X;left the
--       refund exceeds   D;now the deadline has passed
--     K;place,how[;place,how]*  of its calls, these are known: p repeat, u other content, b broken,
--       t the first of a stem that others have met
--     U reused   B broken value   M it holds something else   H too many are held
--     V the tenant's counters are, or will be, elsewhere   F the counters are not rebuilt yet
--   or, for all of them together, with nothing done: E;epoch other epoch   L;last numbers were lost
-- Invariant: nothing is written before every operation is evaluated, and XADD is the first write:
--   what can fail, for memory or a wrong type, fails with nothing changed. Lua does not roll back.
-- Cost: a lone operation takes TIME, HMGET of meta, EXISTS of the moves, GET and SET of its record,
--   HMGET and HSET of its account, XADD, and HSET of its number; of 64 together each takes GET and
--   SET only, and its share of the rest. PEXPIREAT about once an hour per account; a reservation
--   adds GET and SET of its record and ZADD or ZREM per account; a call that it records a SET.
--   Making functions and tables is
--   half of a lone call: what few calls need is made when it is needed. Loops are bounded by the
--   caller's batch.

local answers = {}
-- Charges by template.
local charged = {}

-- Reads the counters that an operation's charges need; returns why that cannot be, nil where it is.
local function prepare(operation)
  local charges = operation.charges
  local count = #charges
  for index = 1, count do
    local charge = charges[index]
    if charge.kind == 'w' and (now < charge.starts or now >= charge.ends) then
      return 'S;' .. whole(now)
    end
  end
  if operation.slots and rare().ahead(operation) then
    return 'S;' .. whole(now)
  end
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
        return 'B'
      end
    end
    local next_hold = accounts[key].next_hold
    if next_hold ~= 0 and next_hold <= now and not rare().expire(key) then
      return 'B'
    end
  end
  if operation.shares then
    local lost = not rare().touch_shares(operation) and 'B' or rare().not_held(operation)
    if lost then
      return lost
    end
  end
  return operation.given and rare().known_among(operation.given)
end

local moves_known = call('EXISTS', KEYS[3]) == 1

local function decide()
  local head = ARGV[cursor + 1]
  local mode, key, stem, event_time, deadline, events, template, place =
    unpacked('<c1HHddHH', head)
  local charges = charged[template]
  if not charges then
    charges = template > 0 and decode_charges(ARGV[1 + template])
      or { labels = '', verdicts = {}, spots = '<' }
    charged[template] = charges
  end
  local spots = { unpacked(charges.spots, head, place) }
  for index = 1, #charges do
    local charge = charges[index]
    charge.key, charge.amount = spots[2 * index - 1], spots[2 * index]
  end
  local operation = {
    mode = mode, asks = mode, key = key, events = events, charges = charges,
    fingerprint = ARGV[cursor + 2], payload = ARGV[cursor + 3],
    used_at = (event_time == 0 or event_time > now) and now or event_time,
  }
  cursor = cursor + 3
  local plain = mode == 'c' or mode == 'r' or mode == 'k'
  if not plain then
    rare().detail(operation)
  end
  if moves_known and rare().has_moved(operation) then
    return 'V'
  end
  if key > 0 then
    local record = records[key]
    if record == nil then
      record = try('GET', KEYS[key])
      if type(record) == 'table' then
        return 'B'
      end
      records[key] = record
    end
    if stem > 0 then
      operation.stem = stem
    end
    local known = record and rare().replay(operation, record)
      or stem > 0 and rare().replay_of_stem(operation)
    if known then
      return known
    end
  end
  if deadline > 0 and deadline < now then
    return 'D;' .. whole(now)
  end
  local shut = fenced and rare().is_fenced(operation) and 'F'
    or operation.reservation and rare().closed(operation) or prepare(operation)
  if shut then
    return shut
  end
  return (not plain and rare().modes[mode] or charge_all)(operation)
end

for index = 1, operations do
  answers[index + 1] = decide()
end

if #entry > 0 then
  call('XADD', KEYS[2], '*', 't', whole(now), 's', source, 'e', epoch, unpack(entry))
  call('HSET', KEYS[1], source, whole(sequence))
end
for index, account in pairs(accounts) do
  local values, size = {}, 0
  for name in pairs(account.dirty) do
    local state, text = account.fields[name], nil
    if state.kind then
      text = rare().encode(state)
    else
      local mark = state[3]
      text = (state[4] or whole(state[1])) .. ':' .. whole(state[2]) .. ':'
        .. (mark == 0 and '0' or whole(mark))
    end
    values[size + 1], values[size + 2] = name, text
    size = size + 2
  end
  if account.next_hold_changed then
    values[size + 1], values[size + 2] = 'h', whole(account.next_hold)
    size = size + 2
  end
  if account.rebuilt then
    values[size + 1], values[size + 2] = 'b', '1'
    size = size + 2
  end
  local extends = account.ends > account.expires_ms * 1000
  if extends then
    -- An hour more than needed, so that short windows do not pay for this on every call.
    account.expires_ms = ceil(account.ends / 1000) + HOUR_MS
    values[size + 1], values[size + 2] = 'x', whole(account.expires_ms)
    size = size + 2
  end
  if size > 0 then
    call('HSET', KEYS[index], unpack(values))
  end
  if extends then
    call('PEXPIREAT', KEYS[index], whole(account.expires_ms))
  end
  if account.moves then
    rare().write_holds(index, account)
  end
end
if is_rare then
  rare().write_rest()
end
for index, left_ms in pairs(new_records) do
  call('SET', KEYS[index], records[index], 'PX', left_ms)
end

answers[1] = sequence
return answers

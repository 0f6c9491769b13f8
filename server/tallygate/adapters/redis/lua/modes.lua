-- Purpose: what each mode does once its accounts are read, as domain/account.py specifies. Part of
--   `rare`.
-- KEYS: those of admit.lua.
-- ARGV: none by itself.
-- Returns: per mode, the answer as admit.lua has it.
-- Invariant: a mode checks all that can fail before it changes the first account.
-- Cost: ZCARD per account to reserve, ZSCORE per share to settle or extend, ZRANGE per account to
--   reset, HGET to rebuild; that evaluates each slot, of which the caller bounds the number.

-- Makes the reservation of what a call takes.
local function reserve(operation, verdicts)
  local ends, shares, order = now + operation.ttl, {}, {}
  for index, verdict in ipairs(verdicts) do
    local charge = operation.charges[index]
    if verdict.slots and #verdict.slots > 0 then
      if not shares[charge.key] then
        shares[charge.key] = {}
        order[#order + 1] = charge.key
      end
      table.insert(shares[charge.key], { name = charge.field, slots = verdict.slots })
    end
  end
  local texts = {}
  for number, index in ipairs(order) do
    local text = encode_pieces(shares[index])
    hold(index, text .. '|' .. operation.id, ends)
    book(index).holds = book(index).holds + 1
    texts[number] = share_record(index, text)
  end
  set_reservation(operation.reservation, {
    state = 'h', expires = ends, at = now, ends = ends + memory_us,
    shares = table.concat(texts), payload = operation.payload,
  })
end

-- Returns a charge's reading as it is now, which its verdict then is of.
local function read(charge)
  local amount = charge.amount
  charge.amount = 0
  local verdict = evaluate(charge, 'k', now)
  charge.amount = amount
  return { verdict[1], verdict[2], verdict[3], verdict[4] }
end

-- Settles one share; returns what it holds still as text, empty for nothing.
local function settle_share(operation, share, expires)
  local account, left = book(share.key), {}
  account.moves[#account.moves + 1] = { 'ZREM', share.text .. '|' .. operation.id }
  account.holds = account.holds - 1
  for number, piece in ipairs(share.pieces) do
    local used, rest = split(piece.slots, share.used[number])
    local back, held_still = split(reversed(rest), share.back[number])
    give_back(share.key, piece.name, back)
    if string.find(piece.name, '/held$') then
      -- Concurrency counts what is held: nothing of it is ever used up.
      give_back(share.key, piece.name, used)
    end
    burn(share.key, piece.name, used)
    if #held_still > 0 then
      left[#left + 1] = { name = piece.name, slots = reversed(held_still) }
    end
  end
  local text = encode_pieces(left)
  if text ~= '' then
    hold(share.key, text .. '|' .. operation.id, expires)
    account.holds = account.holds + 1
  end
  return text
end

local MODE = {}

function MODE.v(operation) return crowded(operation) or charge_all(operation) end

function MODE.m(operation)
  local found = reservations[operation.reservation]
  local first_seq = append(operation, operation.payload, operation.events)
  local recorded, shares = operation.payload, {}
  for _, share in ipairs(operation.shares) do
    local text = settle_share(operation, share, found.expires)
    if text ~= '' then
      shares[#shares + 1] = share_record(share.key, text)
    end
  end
  local verdicts, refusing, overflowing = verdicts_of(operation)
  local over = refusing
  if overflowing and overflowing < (over or math.huge) then
    over = overflowing
  end
  if not over then
    local excess_seq = append(operation, operation.excess, operation.excess_events)
    first_seq = first_seq > 0 and first_seq or excess_seq
    recorded = recorded .. operation.excess
    apply(operation, operation.charges, verdicts)
  end
  local settled = {
    state = found.state, expires = found.expires, at = found.at, ends = found.ends,
    shares = found.shares, payload = found.payload,
  }
  if operation.mode == 'p' then
    settled.shares = table.concat(shares)
  else
    settled.state, settled.ends = operation.mode == 'm' and 'c' or 'l', now + memory_us
  end
  set_reservation(operation.reservation, settled)
  if operation.given then
    remember_given(operation.given, operation.payload, first_seq)
  end
  local answer
  if over then
    answer = tell('Q', first_seq, over - 1, verdicts, 0)
  else
    answer = tell('G', first_seq, 0, verdicts, 4)
  end
  return remember(operation, answer, recorded)
end

MODE.l, MODE.p = MODE.m, MODE.m

function MODE.x(operation)
  local found, expires = reservations[operation.reservation], now + operation.ttl
  for _, share in ipairs(operation.shares) do
    hold(share.key, share.text .. '|' .. operation.id, expires)
  end
  set_reservation(operation.reservation, {
    state = 'h', expires = expires, at = found.at, ends = expires + memory_us,
    shares = found.shares, payload = found.payload,
  })
  return tell('G', 0, 0, {}, 0)
end

-- The units of events that were refunded, by key index.
local tallies = {}

function MODE.f(operation)
  local tally = tallies[operation.tally] or try('GET', KEYS[operation.tally]) or '0'
  tally = tonumber(tally)
  if not tally then
    return 'B'
  end
  if tally + operation.units > operation.units_max then
    return 'X;' .. whole(operation.units_max - tally)
  end
  local first_seq = append(operation, operation.payload, operation.events)
  tallies[operation.tally] = tally + operation.units
  local whole_event = tallies[operation.tally] == operation.units_max
  local readings = {}
  for _, charge in ipairs(operation.charges) do
    local state = accounts[charge.key].fields[charge.field]
    if state and charge.amount > 0 and (whole_event or not operation.counted) then
      local slots, after = refunded(charge, state, operation.used_at)
      set_field(charge.key, charge.field, after)
      burn(charge.key, charge.field, slots)
    end
    readings[#readings + 1] = read(charge)
  end
  return remember(operation, tell('G', first_seq, 0, readings, 0), operation.payload)
end

function MODE.z(operation)
  local slots = {}
  for index, charge in ipairs(operation.charges) do
    slots[index] = held(charge.key, charge.field)
    if not slots[index] then
      return 'B'
    end
  end
  local readings, labels = {}, {}
  for index, charge in ipairs(operation.charges) do
    readings[#readings + 1] = read(charge)
    local state = accounts[charge.key].fields[charge.field]
    if state then
      set_field(charge.key, charge.field, reset(charge, state, slots[index]))
    end
    readings[#readings + 1] = read(charge)
  end
  for label in string.gmatch(operation.charges.labels, '[^;]+') do
    labels[#labels + 1] = label .. ';' .. label
  end
  return remember(operation, tell('G', 0, 0, readings, 0), '', table.concat(labels, ';'))
end

function MODE.g(operation)
  local charge = operation.charges[1]
  local stored = accounts[charge.key].fields[charge.field] or EMPTY_BALANCE
  local slots, balance = add_grants(charge, stored, operation.owed, operation.grants)
  if not slots then
    return 'O;0'
  end
  if balance.seq > 0 or balance.owed > 0 or balance.mark > 0 then
    set_field(charge.key, charge.field, balance)
    keep_until(charge.key, EXACT_MAX)
  end
  burn(charge.key, charge.field, slots)
  put(charge.verdict, 0, read_balance(charge, balance, false))
  return tell('G', 0, 0, { charge.verdict }, 0)
end

-- Returns when the units of a slot were used, nil where this way rebuilds nothing: what is held is
-- reserved again, and what is prepaid is granted again.
local function slot_time(charge, place)
  if charge.kind == 'w' then
    return place
  elseif charge.kind == 's' then
    return place * charge.width
  end
  return charge.kind == 'g' and now or nil
end

-- Counts a slot's units as RECORD would, but tells of no crossing again, and fills a counter to its
-- brim at most: an account that overflowed could never be rebuilt.
local function count_again(operation, charge, slot)
  local used_at = slot_time(charge, slot[1])
  if not used_at then
    return
  end
  charge.amount = slot[2]
  local verdict = evaluate(charge, 'r', used_at)
  if verdict.overflow then
    charge.amount = EXACT_MAX - verdict[2]
    verdict = evaluate(charge, 'r', used_at)
  end
  verdict.crossings = false
  apply(operation, { charge }, { verdict })
end

function MODE.b(operation)
  local key = operation.charges[1] and operation.charges[1].key
  if not key then
    return tell('G', 0, 0, {}, 0)
  end
  local account = accounts[key]
  local again = account.rebuilt or call('HGET', KEYS[key], 'b')
  if not again then
    account.rebuilt = true
    keep_until(key, now + memory_us)
    for index, charge in ipairs(operation.charges) do
      for _, slot in ipairs(operation.slots[index]) do
        count_again(operation, charge, slot)
      end
    end
  end
  local readings = {}
  for index, charge in ipairs(operation.charges) do
    readings[index] = read(charge)
  end
  local answer = tell('G', 0, 0, readings, 0)
  return again and replayed('', operation.charges.labels, answer) or answer
end

-- Tells of thresholds that a charge has crossed.
local function tell_crossings(charge, crossings)
  local number, own = 0, nil
  for label in string.gmatch(charge.labels, '[^;]+') do
    number = number + 1
    own = number == charge.index and label or own
  end
  for _, crossing in ipairs(crossings) do
    crossed = crossed + 1
    entry[#entry + 1] = 'x' .. crossed
    entry[#entry + 1] = own .. ',' .. whole(crossing[1]) .. ',' .. whole(crossing[2]) .. ','
      .. whole(crossing[3]) .. ',' .. whole(crossing[4]) .. ',' .. whole(crossing[5]) .. ','
      .. whole(crossing[6]) .. ',' .. string.sub(KEYS[charge.key], prefix_length + 1)
  end
end

local function detail(operation)
  if DETAIL[operation.mode] then
    DETAIL[operation.mode](operation)
  end
end

-- Writes what admit.lua does not know of.
local function write_rest()
  for index in pairs(changed_reservations) do
    write_reservation(index)
  end
  for index, units in pairs(tallies) do
    call('SET', KEYS[index], whole(units), 'PX', memory_ms)
  end
  for _, key in ipairs(given_keys) do
    call('SET', KEYS[key], records[key], 'PX', memory_ms)
  end
end

is_rare = {
  decode = decode, encode = encode, kind_of = kind_of, burn = burn, replay = replay,
  replay_of_stem = replay_of_stem,
  evaluate = { s = evaluate_sliding, h = evaluate_concurrency, b = evaluate_balance },
  expire = expire, detail = detail, is_fenced = is_fenced, has_moved = has_moved, closed = closed,
  ahead = ahead, touch_shares = touch_shares, not_held = not_held, reserve = reserve,
  modes = MODE, tell_crossings = tell_crossings, write_rest = write_rest,
  write_holds = write_holds, remember_given = remember_given, meet_stem = meet_stem,
  known_among = known_among,
}
return is_rare

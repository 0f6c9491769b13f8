-- Purpose: what reservations hold, how units come back, refunds and resets, as
--   domain/hold.py and domain/account.py specify. Part of `rare`.
-- KEYS: those of state.lua; a reservation's record; an event's refunded units.
-- ARGV: none by itself.
-- Returns: nothing by itself.
-- Invariant: a share's text is `FIELD,PLACE=UNITS+PLACE=UNITS;FIELD,...`; with `|RESERVATION` it is
--   a member of its account's holds, whose score is when it expires. Units come back only to the
--   place that they were taken from, if that is still there.
-- Cost: ZRANGEBYSCORE twice where holds have expired, ZSCORE per share told of.

local EXPIRED_MAX, HOLDS_MAX = 1000, 10000

-- Returns {{name = field, slots = {{place, units}}}} for a share's text.
local function decode_pieces(text)
  local pieces = {}
  for name, slots in string.gmatch(text, '([^;,]+),([^;]*)') do
    local piece = { name = name, slots = {} }
    for place, units in string.gmatch(slots, '(-?%d+)=(%d+)') do
      piece.slots[#piece.slots + 1] = { tonumber(place), tonumber(units) }
    end
    pieces[#pieces + 1] = piece
  end
  return pieces
end

local function encode_pieces(pieces)
  local texts = {}
  for index, piece in ipairs(pieces) do
    local slots = {}
    for number, slot in ipairs(piece.slots) do
      slots[number] = whole(slot[1]) .. '=' .. whole(slot[2])
    end
    texts[index] = piece.name .. ',' .. table.concat(slots, '+')
  end
  return table.concat(texts, ';')
end

-- Returns the state once units have come back to a place of it.
local function returned(state, place, units)
  if not state.kind then
    if state[1] ~= place then
      return state
    end
    return { state[1], max(0, state[2] - units), state[3] }
  end
  if state.kind == 's' then
    return add_to_bucket(state, place, -units)
  end
  local balance = new_balance(state, {})
  if place == OVERDRAFT then
    balance.owed = max(0, state.owed - units)
  end
  for index, grant in ipairs(state.grants) do
    if grant.seq == place then
      grant = with_remaining(grant, math.min(grant.granted, grant.remaining + units))
    end
    balance.grants[index] = grant
  end
  return balance
end

-- Returns an account with its book of holds: moves {'ZADD', score, member} or {'ZREM', member},
-- holds: how many more there are than Redis has, expired: how many were found to be.
local function book(index)
  local account = accounts[index]
  if not account.moves then
    account.moves, account.holds, account.expired = {}, 0, 0
  end
  return account
end

local function set_next_hold(index, at)
  local account = accounts[index]
  if account.next_hold ~= at then
    account.next_hold = at
    account.next_hold_changed = true
  end
end

-- Reads what is not read yet of an account's fields; says whether all of it could be read.
local function load_missing(index, names)
  local account, missing = accounts[index], {}
  for _, name in ipairs(names) do
    if not account or account.fields[name] == nil then
      missing[#missing + 1] = name
    end
  end
  return (account and #missing == 0) or load_fields(index, missing)
end

local function give_back(index, name, slots)
  for _, slot in ipairs(slots) do
    local state = accounts[index].fields[name]
    if state then
      set_field(index, name, returned(state, slot[1], slot[2]))
    end
  end
end

local function names_of(pieces, names)
  for _, piece in ipairs(pieces) do
    names[#names + 1] = piece.name
  end
  return names
end

-- Lets the units of expired holds come back; says whether all could be read.
local function expire(index)
  local account = book(index)
  local key, offset = KEYS[index + 1], whole(account.expired)
  local due = try(
    'ZRANGEBYSCORE', key, '-inf', whole(now), 'LIMIT', offset, whole(EXPIRED_MAX)
  )
  if due.err then
    return false
  end
  local shares = {}
  for _, member in ipairs(due) do
    local pieces = decode_pieces(string.match(member, '^[^|]*'))
    if not load_missing(index, names_of(pieces, {})) then
      return false
    end
    shares[#shares + 1] = pieces
  end
  for number, pieces in ipairs(shares) do
    for _, piece in ipairs(pieces) do
      give_back(index, piece.name, piece.slots)
    end
    account.moves[#account.moves + 1] = { 'ZREM', due[number] }
  end
  account.expired = account.expired + #due
  account.holds = account.holds - #due
  local rest = call(
    'ZRANGEBYSCORE', key, '-inf', '+inf', 'WITHSCORES', 'LIMIT', whole(account.expired), '1'
  )
  set_next_hold(index, rest[2] and tonumber(rest[2]) or 0)
  return true
end

local function hold(index, member, ends)
  local account = book(index)
  account.moves[#account.moves + 1] = { 'ZADD', whole(ends), member }
  local first = account.next_hold
  set_next_hold(index, first > 0 and math.min(first, ends) or ends)
  keep_until(index, ends)
end

-- Says why an operation cannot hold more of its accounts, nil when it can.
local function crowded(operation)
  for _, charge in ipairs(operation.charges) do
    local stored = try('ZCARD', KEYS[charge.key + 1])
    if type(stored) == 'table' then
      return 'B'
    elseif stored + book(charge.key).holds >= HOLDS_MAX then
      return 'H'
    end
  end
end

-- Says why an operation cannot settle or extend what it tells of, nil when all of it is held. Units
-- that have come back stay, though a clock that was set back has the reservation last still.
local function not_held(operation)
  for _, share in ipairs(operation.shares) do
    local member = share.text .. '|' .. operation.id
    local known = try('ZSCORE', KEYS[share.key + 1], member)
    if type(known) == 'table' then
      return 'B'
    end
    for _, move in ipairs(book(share.key).moves) do
      if move[#move] == member then
        known = move[1] == 'ZADD'
      end
    end
    if not known then
      return 'T;e'
    end
  end
end

-- Returns the slots that reservations hold of a counter, as {place, units}, or nil.
local function held(index, name)
  local members, slots = {}, {}
  local stored = try('ZRANGE', KEYS[index + 1], '0', '-1')
  if stored.err then
    return nil
  end
  for _, member in ipairs(stored) do
    members[member] = true
  end
  for _, move in ipairs(book(index).moves) do
    members[move[#move]] = move[1] == 'ZADD' or nil
  end
  for member in pairs(members) do
    for _, piece in ipairs(decode_pieces(string.match(member, '^[^|]*'))) do
      if piece.name == name then
        for _, slot in ipairs(piece.slots) do
          slots[#slots + 1] = slot
        end
      end
    end
  end
  return slots
end

-- Reservations as this call sees them, by key index: {state, expires, at, ends, shares, payload},
-- or false for none. `ends` is until when the reservation is known. Those in `changed` are written.
local reservations, changed_reservations = {}, {}

local function find_reservation(index)
  if reservations[index] ~= nil then
    return reservations[index]
  end
  local record = try('GET', KEYS[index])
  if type(record) == 'table' then
    return nil
  end
  local found = false
  if record then
    local state, expires, at, ends, size, start =
      string.match(record, '^(%a);(%d+);(%d+);(%d+);(%d+):()')
    if not state then
      return nil
    end
    local middle = start + tonumber(size)
    found = {
      state = state, expires = tonumber(expires), at = tonumber(at), ends = tonumber(ends),
      shares = string.sub(record, start, middle - 1), payload = string.sub(record, middle),
    }
  end
  reservations[index] = found
  return found
end

local function set_reservation(index, reservation)
  reservations[index] = reservation
  changed_reservations[index] = true
end

local function write_reservation(index)
  local found = reservations[index]
  local record = table.concat({
    found.state, whole(found.expires), whole(found.at), whole(found.ends),
    whole(#found.shares) .. ':' .. found.shares .. found.payload,
  }, ';')
  call('SET', KEYS[index], record, 'PX', whole(max(1, ceil((found.ends - now) / 1000))))
end

-- Writes an account's moves.
local function write_holds(index, account)
  for _, move in ipairs(account.moves) do
    call(move[1], KEYS[index + 1], unpack(move, 2))
  end
  if #account.moves > 0 then
    call('PEXPIREAT', KEYS[index + 1], whole(account.expires_ms))
  end
end

-- A share in its reservation's record: the lengths tell where names end that may hold any sign.
local function share_record(index, text)
  local account = string.sub(KEYS[index], prefix_length + 1)
  return whole(#account) .. ',' .. account .. whole(#text) .. ',' .. text
end

-- Returns the first so many units of slots, and the rest.
local function split(slots, units)
  local taken, rest = {}, {}
  for _, slot in ipairs(slots) do
    local part = math.min(units, slot[2])
    units = units - part
    if part > 0 then
      taken[#taken + 1] = { slot[1], part }
    end
    if slot[2] > part then
      rest[#rest + 1] = { slot[1], slot[2] - part }
    end
  end
  return taken, rest
end

local function reversed(slots)
  local result = {}
  for index = #slots, 1, -1 do
    result[#result + 1] = slots[index]
  end
  return result
end

-- Gives a balance units back in the reverse order of burning; returns where they went and the rest.
local function refund_balance(balance, units)
  local slots = {}
  local function back(place, amount)
    if amount > 0 then
      slots[#slots + 1] = { place, -amount }
      balance = returned(balance, place, amount)
      units = units - amount
    end
  end
  back(OVERDRAFT, math.min(units, balance.owed))
  for _, grant in ipairs(reversed(balance.grants)) do
    if live(grant) then
      back(grant.seq, math.min(units, grant.granted - grant.remaining))
    end
  end
  return slots, balance
end

-- Returns the balance's slots that a refund went to, and the state then.
local function refunded(charge, state, used_at)
  if charge.kind == 'w' and used_at >= state[1] then
    return {}, { state[1], max(0, state[2] - charge.amount), state[3] }
  elseif charge.kind == 's' then
    return {}, add_to_bucket(state, math.floor(used_at / charge.width), -charge.amount)
  elseif charge.kind == 'b' then
    return refund_balance(state, charge.amount)
  end
  return {}, state
end

-- Returns the state once all that no reservation holds is forgotten.
local function reset(charge, state, slots)
  if charge.kind == 'g' then
    return { max(now, state[1]), 0, state[3] }
  elseif charge.kind == 'b' then
    -- A balance is the ledger's: it changes by grants only.
    return state
  elseif charge.kind == 's' then
    local kept = { kind = 's' }
    for _, slot in ipairs(slots) do
      kept = add_to_bucket(kept, slot[1], slot[2])
    end
    return kept
  end
  local total = 0
  for _, slot in ipairs(slots) do
    if slot[1] == state[1] then
      total = total + slot[2]
    end
  end
  return { state[1], total, 0 }
end

-- Purpose: what operations have beside the rest, what may stand in their way, and how repeats are
--   answered. Part of `rare`.
-- KEYS: those of admit.lua.
-- ARGV: the details of modes, as admit.lua has them.
-- Returns: per question, the answer as admit.lua has it, nil or false where nothing is in the way.
-- Invariant: nothing is changed here.
-- Cost: HGET of the moves where there are any; GET of a reservation's record.

-- What a mode has beside the rest.
local DETAIL = {}

function DETAIL.j(operation) operation.reason = take() end

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

function DETAIL.t(operation) operation.asks, operation.given = 'r', take_given() end

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

-- Says whether an operation has to wait until counters that were lost are rebuilt: what they could
-- refuse, or would tell of, or what takes from them units that they may not hold yet. Before the
-- shard is SEEN its balances lack their grants: what was used of them then would be free.
local ALWAYS = { k = true, f = true, z = true }
local KNOWN_ONLY = { m = true, l = true, p = true, x = true }
local GATES = { c = true, v = true }
local GIVING = { g = true, b = true, j = true }

local function is_fenced(operation)
  if ALWAYS[operation.mode] then
    return true
  end
  if KNOWN_ONLY[operation.mode] then
    local found = find_reservation(operation.reservation)
    if found == false or (found and now >= found.ends) then
      return true
    end
  end
  local gated, taking = GATES[operation.asks], grantless and not GIVING[operation.mode]
  for _, charge in ipairs(operation.charges) do
    local prepaid = taking and charge.kind == 'b'
    if charge.amount > 0 and (prepaid or (gated and charge.hard)) then
      return true
    end
  end
  return false
end

-- Says whether a tenant's counters are not here, or not yet. What is not remembered may pass all
-- the same: its events belong to the ledger, whichever stream they take.
local function has_moved(operation)
  local named = operation.key > 0 and operation.key or operation.reservation
  if not named then
    return false
  end
  local tenant = string.match(string.sub(KEYS[named], prefix_length + 1), '^[^ ]+')
  local move = call('HGET', KEYS[3], tenant)
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

-- Says whether a window is still to come that units are to be counted in: it has no counter yet.
local function ahead(operation)
  for index, charge in ipairs(operation.charges) do
    for _, slot in ipairs(operation.slots[index]) do
      if charge.kind == 'w' and slot[1] > now then
        return true
      end
    end
  end
  return false
end

-- Reads what the shares told of need; says whether all of it could be read.
local function touch_shares(operation)
  for _, share in ipairs(operation.shares) do
    if not load_missing(share.key, names_of(share.pieces, {})) then
      return false
    end
    local next_hold = accounts[share.key].next_hold
    if next_hold ~= 0 and next_hold <= now and not expire(share.key) then
      return false
    end
  end
  return true
end

-- Puts the first answer, given under a source id, to its repeat.
local function replayed(numbered, labels, answer)
  local code = string.sub(answer, 1, 1) == 'G' and 'P' or 'p'
  return code .. packed('<Hc0Hc0', #numbered, numbered, #labels, labels) .. answer
end

-- Packs what a record holds that an older version of this script has written, as text.
local function replay_text(operation, record)
  local print, ends, numbered, code, at, rest =
    string.match(record, '^([^;]*);(%d+);([^;]*);([GQ]);(%d+);([^\n]*)')
  if not print then
    return 'B'
  elseif now >= tonumber(ends) then
    return nil
  elseif print ~= operation.fingerprint then
    return 'U'
  end
  local first_seq, refusing, labels, form = string.match(rest, '^(%d+)'), 0, {}, '<c1ddd'
  if code == 'Q' then
    refusing = string.match(rest, '^%d+;(%d+)')
  end
  local told = { code, tonumber(at), tonumber(first_seq), tonumber(refusing) }
  local reading = ';([^,;]*,[^,;]*),(%a),(%d+),(%d+),%d+,(%d+)'
  for label, state, used, limit, resets_at in string.gmatch(rest, reading) do
    local size = #told
    labels[#labels + 1], form = label, form .. 'c1ddd'
    told[size + 1], told[size + 2] = state, tonumber(used)
    told[size + 3], told[size + 4] = tonumber(limit), tonumber(resets_at)
  end
  return replayed(numbered, table.concat(labels, ';'), packed(form, unpack(told)))
end

-- Answers a repeat from the record of its stem; returns nil where that has ended, or has it not.
local function replay_of_stem(operation)
  local key = operation.stem
  if records[key] == nil then
    records[key] = try('GET', KEYS[key])
  end
  local record = records[key]
  if type(record) == 'table' then
    return 'B'
  elseif not record or string.sub(record, 1, 1) ~= '\3' then
    return nil
  end
  local known, _, ends, at, first_seq, _, events, calls, print, numbered =
    pcall(unpacked, '<c1ddddHHHc0Hc0', record)
  local place = tonumber(string.sub(KEYS[operation.key], -2), 16)
  if not known then
    return 'B'
  elseif now >= ends or place >= calls then
    return nil
  elseif print ~= operation.fingerprint then
    return 'U'
  end
  return replayed(numbered, '', packed('<c1ddd', 'G', at, first_seq + place * events, 0))
end

-- Answers a repeat from its record; returns nil where that has ended.
local function replay(operation, record)
  if string.sub(record, 1, 1) ~= '\1' then
    return replay_text(operation, record)
  end
  local known, _, ends, print, numbered, labels, answer =
    pcall(unpacked, '<c1dHc0Hc0Hc0Hc0', record)
  if not known then
    return 'B'
  elseif now >= ends then
    return nil
  elseif print ~= operation.fingerprint then
    return 'U'
  end
  return replayed(numbered, labels, answer)
end

-- Purpose: calls that were granted ahead of Redis, recorded with the operation that settles their
--   units, as domain/given.py specifies.
-- KEYS: those of admit.lua.
-- ARGV: number of runs of calls; per run: number of calls, events of each, bytes of each in the
--   operation's payload; then per call: index of its operation key ("0": none), fingerprint.
-- Returns: nothing by itself.
-- Invariant: all calls of an operation are recorded, or none, where one is known already.
-- Cost: one MGET for all calls of an operation, and a SET for each of them.

local function take_given()
  local runs = take_number()
  if runs == 0 then
    return nil
  end
  local given, count, at = { keys = {}, fingerprints = {}, events = {}, sizes = {} }, 0, cursor
  local ARGV, tonumber = ARGV, tonumber
  for _ = 1, runs do
    local calls, events, size =
      tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    at = at + 3
    for number = count + 1, count + calls do
      given.keys[number], given.fingerprints[number] = tonumber(ARGV[at + 1]), ARGV[at + 2]
      given.events[number], given.sizes[number] = events, size
      at = at + 2
    end
    count = count + calls
  end
  cursor = at
  return given
end

-- Says which calls are known already, nil when none is.
local function known_among(given)
  local keys, missing, names = given.keys, {}, {}
  for number = 1, #keys do
    local key = keys[number]
    if key > 0 and records[key] == nil then
      missing[#missing + 1] = key
      names[#missing] = KEYS[key]
    end
  end
  if #missing > 0 then
    -- What is of another type than a record is told as nothing, and written over.
    local found = redis.call('MGET', unpack(names))
    for number = 1, #missing do
      records[missing[number]] = found[number]
    end
  end
  local told = { 'K' }
  for number = 1, #keys do
    local record = records[keys[number]]
    if record then
      local fingerprint, ends = string.match(record, '^([^;]*);(%d+);[^;]*;[GQ]')
      if not fingerprint then
        told[#told + 1] = whole(number - 1) .. ',b'
      elseif now < tonumber(ends) then
        local same = fingerprint == given.fingerprints[number]
        told[#told + 1] = whole(number - 1) .. (same and ',p' or ',u')
      end
    end
  end
  return #told > 1 and table.concat(told, ';') or nil
end

-- What is written of calls: the indices of their keys, and their records.
local given_keys, given_records = {}, {}

-- Remembers that each call was granted, with its events.
local function remember_given(given, payload, first_seq)
  local keys, fingerprints, events, sizes =
    given.keys, given.fingerprints, given.events, given.sizes
  local middle = ';' .. whole(now + memory_us) .. ';' .. source .. ';G;' .. whole(now) .. ';'
  local start, written = 1, #given_keys
  for number = 1, #keys do
    local key, ends = keys[number], start + sizes[number]
    if key > 0 then
      local record = fingerprints[number] .. middle .. whole(first_seq) .. '\n'
        .. string.sub(payload, start, ends - 1)
      written = written + 1
      given_keys[written], given_records[written] = key, record
      records[key] = record
    end
    first_seq = first_seq + events[number]
    start = ends
  end
end

local function write_given()
  local left_ms = whole(memory_us / 1000)
  for number = 1, #given_keys do
    redis.call('SET', KEYS[given_keys[number]], given_records[number], 'PX', left_ms)
  end
end

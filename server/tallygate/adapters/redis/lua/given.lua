-- Purpose: calls that were granted ahead of Redis, recorded with the operation that settles their
--   units, as domain/given.py specifies. Part of `rare`.
-- KEYS: those of admit.lua.
-- ARGV: number of runs of calls; per run, packed as `<HHd`, number of calls, events of each, bytes
--   of each in the operation's payload, and per call as `HHc0` index of its operation key (0:
--   none), fingerprint with its size.
-- Returns: nothing by itself.
-- Invariant: all calls of an operation are recorded, or none, where one is known already.
-- Cost: one MGET for all calls of an operation, and a SET for each of them.

local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

local function take_number() return tonumber(take()) end

-- Returns whose an operation's record is, by its fingerprint, and until when it is one.
local function head_of(record)
  if string.sub(record, 1, 1) == '\1' then
    local known, _, ends, print = pcall(unpacked, '<c1dHc0', record)
    return known and print, ends
  end
  -- As an older version wrote it.
  local print, ends = string.match(record, '^([^;]*);(%d+);[^;]*;[GQ]')
  return print, tonumber(ends)
end

local function take_given()
  local runs = take_number()
  if runs == 0 then
    return nil
  end
  local keys, prints, events, sizes, count = {}, {}, {}, {}, 0
  for _ = 1, runs do
    local run = take()
    local calls, events_of_each, size, place = unpacked('<HHd', run)
    local found = { unpacked('<' .. string.rep('HHc0', calls), run, place) }
    for number = 1, calls do
      count = count + 1
      keys[count], prints[count] = found[2 * number - 1], found[2 * number]
      events[count], sizes[count] = events_of_each, size
    end
  end
  return { keys = keys, prints = prints, events = events, sizes = sizes }
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
    local found = call('MGET', unpack(names))
    for number = 1, #missing do
      records[missing[number]] = found[number]
    end
  end
  local told = { 'K' }
  for number = 1, #keys do
    local record = records[keys[number]]
    if record then
      local print, ends = head_of(record)
      if not print then
        told[#told + 1] = whole(number - 1) .. ',b'
      elseif now < ends then
        told[#told + 1] = whole(number - 1) .. (print == given.prints[number] and ',p' or ',u')
      end
    end
  end
  return #told > 1 and table.concat(told, ';') or nil
end

-- What is written of calls: the indices of their keys.
local given_keys = {}

-- Remembers that each call was granted, with its events.
local function remember_given(given, payload, first_seq)
  local keys, prints, events, sizes = given.keys, given.prints, given.events, given.sizes
  local head = packed('<c1d', '\1', now + memory_us)
  local middle = packed('<Hc0HHc1d', #source, source, 0, 25, 'G', now)
  local start, written, alike, before = 1, #given_keys, nil, nil
  for number = 1, #keys do
    local key, print, ends = keys[number], prints[number], start + sizes[number]
    if key > 0 then
      if #print ~= alike then
        alike = #print
        before = head .. packed('<H', alike)
      end
      records[key] = before .. print .. middle .. packed('<dd', first_seq, 0)
        .. string.sub(payload, start, ends - 1)
      written = written + 1
      given_keys[written] = key
    end
    first_seq = first_seq + events[number]
    start = ends
  end
end

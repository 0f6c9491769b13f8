-- Purpose: calls that were granted ahead of Redis, recorded with the operation that settles their
--   units, as domain/given.py specifies. Part of `rare`.
-- KEYS: those of admit.lua.
-- ARGV: number of runs of calls; per run, packed as `<HHHd`, index of its stem's key (0: none),
--   number of calls, events of each, bytes of each in the operation's payload; then with a stem as
--   `Hc0` the fingerprint of all with its size, else per call as `HHc0` index of its operation key
--   (0: none), fingerprint with its size.
-- Returns: nothing by itself.
-- Invariant: all calls of an operation are recorded, or none, where one is known already. A stem's
--   record is packed as `c1ddddHHHc0Hc0`, \3, its end, the time, the first event's number, bytes
--   of each call, events of each, calls, fingerprint and source id with their sizes; then the first
--   call's events. Where a call of a stem was recorded by itself before, it is \4 alone.
-- Cost: one MGET for all calls of an operation, and a SET for each of them, or for each stem.

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
  local given, count = {}, 0
  for number = 1, runs do
    local packing = take()
    local stem, calls, events, size, place = unpacked('<HHHd', packing)
    local run = { stem = stem, calls = calls, events = events, size = size, before = count }
    if stem > 0 then
      run.print = unpacked('<Hc0', packing, place)
    else
      run.found = { unpacked('<' .. string.rep('HHc0', calls), packing, place) }
    end
    given[number] = run
    count = count + calls
  end
  return given
end

-- Reads the records of calls, and of stems, that were not read yet.
local function read_given(given)
  local missing, names = {}, {}
  local function need(key)
    if key > 0 and records[key] == nil then
      missing[#missing + 1] = key
      names[#missing] = KEYS[key]
    end
  end
  for _, run in ipairs(given) do
    need(run.stem)
    if run.found then
      for number = 1, run.calls do
        need(run.found[2 * number - 1])
      end
    end
  end
  if #missing > 0 then
    -- What is of another type than a record is told as nothing, and written over.
    local found = call('MGET', unpack(names))
    for number = 1, #missing do
      records[missing[number]] = found[number]
    end
  end
end

-- Says which calls are known already, nil when none is.
local function known_among(given)
  read_given(given)
  local told = { 'K' }
  for _, run in ipairs(given) do
    if run.stem > 0 and records[run.stem] then
      told[#told + 1] = whole(run.before) .. ',t'
    end
    for number = 1, run.found and run.calls or 0 do
      local record = records[run.found[2 * number - 1]]
      if record then
        local print, ends = head_of(record)
        local place = whole(run.before + number - 1)
        if not print then
          told[#told + 1] = place .. ',b'
        elseif now < ends then
          told[#told + 1] = place .. (print == run.found[2 * number] and ',p' or ',u')
        end
      end
    end
  end
  return #told > 1 and table.concat(told, ';') or nil
end

-- What is written of calls and stems: the indices of their keys.
local given_keys = {}

-- Notes that a call of a stem is recorded by itself: who comes with all of them looks at each then.
-- Where all were recorded before, nobody comes with them again.
local function meet_stem(key, kept_ms)
  if string.sub(records[key] or '', 1, 1) ~= '\3' then
    records[key], new_records[key] = '\4', kept_ms
  end
end

local function remember_stem(run, payload, start, first_seq)
  records[run.stem] = packed('<c1d', '\3', now + memory_us)
    .. packed('<ddd', now, first_seq, run.size) .. packed('<HH', run.events, run.calls)
    .. packed('<Hc0Hc0', #run.print, run.print, #source, source)
    .. string.sub(payload, start, start + run.size - 1)
  given_keys[#given_keys + 1] = run.stem
end

local function remember_each(run, payload, start, first_seq)
  local head = packed('<c1d', '\1', now + memory_us)
  local middle = packed('<Hc0HHc1d', #source, source, 0, 25, 'G', now)
  local found, size, written, alike, before = run.found, run.size, #given_keys, nil, nil
  for number = 1, run.calls do
    local key, print = found[2 * number - 1], found[2 * number]
    if key > 0 then
      if #print ~= alike then
        alike = #print
        before = head .. packed('<H', alike)
      end
      records[key] = before .. print .. middle .. packed('<dd', first_seq, 0)
        .. string.sub(payload, start, start + size - 1)
      written = written + 1
      given_keys[written] = key
    end
    first_seq = first_seq + run.events
    start = start + size
  end
end

-- Remembers that each call was granted, with its events.
local function remember_given(given, payload, first_seq)
  local start = 1
  for _, run in ipairs(given) do
    local remember_run = run.stem > 0 and remember_stem or remember_each
    remember_run(run, payload, start, first_seq)
    first_seq = first_seq + run.calls * run.events
    start = start + run.calls * run.size
  end
end

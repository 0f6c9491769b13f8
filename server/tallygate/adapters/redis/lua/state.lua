-- Purpose: what every part of admit.lua builds on: arguments, numbers, and accounts as this call
--   sees them, read from Redis once and written back at its end.
-- KEYS: an account takes two in a row, its hash and its holds.
-- ARGV: 1 what all operations share; admit.lua says what stands where.
-- Returns: nothing by itself; script.py says in which order the parts are joined. `rare` stands
--   for the parts that few calls need: a script's functions and tables are made anew by each call,
--   and making those costs more than deciding.
-- Invariant: nothing is written to Redis before the end of admit.lua. A value reads back as it was
--   written: `AT:AMOUNT:MARK`, `sBUCKET=UNITS,...` or `bSEQ:OWED:MARK;GRANT...`, where a grant is
--   SEQ:PRIORITY:STARTS:EXPIRES:GRANTED:REMAINING.
-- Cost: one HMGET per account, and one more where expired holds come back.

local HOUR_MS = 3600000
local EXACT_MAX = 9007199254740991
local call, try, unpacked, packed = redis.call, redis.pcall, struct.unpack, struct.pack
local format, max, ceil = string.format, math.max, math.ceil

local now, known_seq, memory_ms, prefix_length, operations, templates, epoch, source =
  unpacked('<dddHHHHc0Hc0', ARGV[1])
local memory_us = memory_ms * 1000
-- The last argument that was read.
local cursor = 1 + templates
local rare, is_rare

-- Integers format twice as fast as doubles, where the server's are of 64 bits.
local WHOLE = struct.size('l') == 8 and '%d' or '%.0f'
local function whole(number) return format(WHOLE, number) end

if now == 0 then
  -- Read once: on Redis 7.0 two reads in one script differ.
  local clock = call('TIME')
  now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
end

-- Accounts by the index of their hash's key: {fields = {name = state or false}, dirty = {name =
-- true}, expires_ms, next_hold, ends: until when it is needed}, and what holds.lua adds. What one
-- operation of this call has changed a later one sees. The state of a window, a rate or a
-- concurrency is {at, amount, mark, the text of `at` where it is known}; others have a `kind`.
local accounts = {}

-- Reads fields of an account; says whether all of them could be read.
local function load_fields(index, names)
  local account, wanted = accounts[index], #names
  if not account then
    names[wanted + 1], names[wanted + 2] = 'x', 'h'
  end
  local values = try('HMGET', KEYS[index], unpack(names))
  if values.err then
    return false
  end
  local fields = account and account.fields or {}
  for position = 1, wanted do
    local text, state = values[position], false
    if text then
      local at, amount, mark = string.match(text, '^(%d+):(%d+):(%d+)$')
      if at then
        state = { tonumber(at), tonumber(amount), mark == '0' and 0 or tonumber(mark), at }
      else
        state = rare().decode(text)
        if not state then
          return false
        end
      end
    end
    fields[names[position]] = state
  end
  if not account then
    accounts[index] = {
      fields = fields, dirty = {}, ends = 0,
      expires_ms = tonumber(values[wanted + 1] or 0), next_hold = tonumber(values[wanted + 2] or 0),
    }
  end
  return true
end

-- Purpose: what every part of admit.lua builds on: arguments, numbers, and accounts as this call
--   sees them, read from Redis once and written back at its end.
-- KEYS: an account takes two in a row, its hash and its holds.
-- ARGV: read in order by `take`; admit.lua says what stands where.
-- Returns: nothing by itself; script.py says in which order the parts are joined. `rare` stands
--   for the parts that few calls need: a script's functions and tables are made anew by each call,
--   and making those costs more than deciding.
-- Invariant: nothing is written to Redis before `write_account`. A value reads back as it was
--   written: `AT:AMOUNT:MARK`, `sBUCKET=UNITS,...` or `bSEQ:OWED:MARK;GRANT...`, where a grant is
--   SEQ:PRIORITY:STARTS:EXPIRES:GRANTED:REMAINING.
-- Cost: one HMGET per account, and one more where expired holds come back.

local HOUR_MS = 3600000
local EXACT_MAX = 9007199254740991
local call, try, unpacked, packed = redis.call, redis.pcall, struct.unpack, struct.pack
local format, max, ceil = string.format, math.max, math.ceil

local now, known_seq, memory_ms, prefix_length, operations, templates =
  unpacked('<dddHHH', ARGV[1])
local epoch, source = ARGV[2], ARGV[3]
local memory_us = memory_ms * 1000
local cursor = 3 + templates
local rare, is_rare

local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

-- Integers format twice as fast as doubles, where the server's are of 64 bits.
local WHOLE = format('%d', EXACT_MAX) == '9007199254740991' and '%d' or '%.0f'
local function whole(number) return format(WHOLE, number) end

if now == 0 then
  -- Read once: on Redis 7.0 two reads in one script differ.
  local clock = call('TIME')
  now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
end

-- Accounts by the index of their hash's key: {fields = {name = state or false}, dirty = {name =
-- true}, expires_ms, next_hold, ends_ms}, and what holds.lua adds. What one operation of this call
-- has changed a later one sees. The state of a window, a rate or a concurrency is {at, amount,
-- mark, the text of `at` where it is known}; others have a `kind`.
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
      fields = fields, dirty = {}, ends_ms = 0,
      expires_ms = tonumber(values[wanted + 1] or 0), next_hold = tonumber(values[wanted + 2] or 0),
    }
  end
  return true
end

local function set_field(index, name, state)
  local account = accounts[index]
  account.fields[name] = state
  account.dirty[name] = true
end

-- Keeps the account at least until then.
local function keep_until(index, at)
  local account = accounts[index]
  account.ends_ms = max(account.ends_ms, ceil(at / 1000))
end

local function write_account(index, account)
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
  local extends = account.ends_ms > account.expires_ms
  if extends then
    -- An hour more than needed, so that short windows do not pay for this on every call.
    account.expires_ms = account.ends_ms + HOUR_MS
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

-- Purpose: what every part of admit.lua builds on: arguments, numbers, and accounts as this call
--   sees them, read from Redis once and written back at its end.
-- KEYS: an account takes two in a row, its hash and its holds.
-- ARGV: read in order by `take`; admit.lua says what stands where.
-- Returns: nothing by itself; the parts are joined in the order state, limits, holds, admit.
-- Invariant: nothing is written to Redis before `write_accounts`. A value reads back as it was
--   written: `AT:AMOUNT:MARK`, `sBUCKET=UNITS,...` or `bSEQ:OWED:MARK;GRANT...`, where a grant is
--   SEQ:PRIORITY:STARTS:EXPIRES:GRANTED:REMAINING.
-- Cost: one HMGET per account, and one more where expired holds come back.

local HOUR_MS = 3600000
local EXACT_MAX = 9007199254740991

local cursor = 7
local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

local function take_number() return tonumber(take()) end
-- Integers format five times as fast as doubles, where the server's are of 64 bits.
local WHOLE = string.format('%d', EXACT_MAX) == '9007199254740991' and '%d' or '%.0f'
local function whole(number) return string.format(WHOLE, number) end
local function ceil_div(dividend, divisor) return math.ceil(dividend / divisor) end

local now = tonumber(ARGV[1])
if now == 0 then
  -- Read once: on Redis 7.0 two reads in one script differ.
  local clock = redis.call('TIME')
  now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
end
local epoch, source, known_seq = ARGV[2], ARGV[3], tonumber(ARGV[4])
local memory_us, prefix_length = tonumber(ARGV[5]) * 1000, tonumber(ARGV[6])

local function decode_buckets(text)
  if not string.find(text, '^s[%d=,]*$') then
    return nil
  end
  local buckets = { kind = 's' }
  for place, units in string.gmatch(text, '(%d+)=(%d+)') do
    buckets[#buckets + 1] = { tonumber(place), tonumber(units) }
  end
  return buckets
end

local function decode_balance(text)
  local seq, owed, mark, rest = string.match(text, '^b(%d+):(%d+):(%d+)([-%d:;]*)$')
  if not seq then
    return nil
  end
  local balance = {
    kind = 'b', seq = tonumber(seq), owed = tonumber(owed), mark = tonumber(mark), grants = {},
  }
  local grant = ';(%d+):(-?%d+):(%d+):(%d+):(%d+):(%d+)'
  for number, priority, starts, expires, granted, remaining in string.gmatch(rest, grant) do
    balance.grants[#balance.grants + 1] = {
      seq = tonumber(number), priority = tonumber(priority), starts = tonumber(starts),
      expires = tonumber(expires), granted = tonumber(granted), remaining = tonumber(remaining),
    }
  end
  return balance
end

-- Returns what is stored of a limit, or nil for what cannot be read. A window's, a rate's and a
-- concurrency's is {at, amount, mark}.
local function decode(text)
  local at, amount, mark = string.match(text, '^(%d+):(%d+):(%d+)$')
  if at then
    return { tonumber(at), tonumber(amount), tonumber(mark) }
  end
  return decode_buckets(text) or decode_balance(text)
end

local function encode(state)
  if not state.kind then
    return whole(state[1]) .. ':' .. whole(state[2]) .. ':' .. whole(state[3])
  end
  local parts = {}
  if state.kind == 's' then
    for index, bucket in ipairs(state) do
      parts[index] = whole(bucket[1]) .. '=' .. whole(bucket[2])
    end
    return 's' .. table.concat(parts, ',')
  end
  parts[1] = 'b' .. whole(state.seq) .. ':' .. whole(state.owed) .. ':' .. whole(state.mark)
  for _, grant in ipairs(state.grants) do
    parts[#parts + 1] = table.concat({
      whole(grant.seq), whole(grant.priority), whole(grant.starts), whole(grant.expires),
      whole(grant.granted), whole(grant.remaining),
    }, ':')
  end
  return table.concat(parts, ';')
end

-- Accounts by the index of their hash's key: {fields = {name = state or false}, dirty = {name =
-- true}, expires_ms, next_hold, moves = {{'ZADD', score, member} or {'ZREM', member}}, expired,
-- holds: how many more there are than Redis has, rebuilt: whether this call has rebuilt it}. What
-- one operation of this call has changed a later one sees.
local accounts = {}

-- Reads what is not read yet of an account's fields; says whether all of it could be read.
local function load_fields(index, names)
  local account = accounts[index]
  local first = not account
  if first then
    account = {
      fields = {}, dirty = {}, moves = {}, expired = 0, expires_ms = 0, next_hold = 0, ends_ms = 0,
      next_hold_changed = false, holds = 0, rebuilt = false,
    }
    accounts[index] = account
  end
  local missing = {}
  for _, name in ipairs(names) do
    if account.fields[name] == nil then
      missing[#missing + 1] = name
    end
  end
  local wanted = #missing
  if first then
    missing[wanted + 1], missing[wanted + 2] = 'x', 'h'
  end
  if #missing == 0 then
    return true
  end
  local values = redis.pcall('HMGET', KEYS[index], unpack(missing))
  local function fail()
    if first then
      accounts[index] = nil
    end
    return false
  end
  if values.err then
    return fail()
  end
  for position = 1, wanted do
    local state = values[position] and decode(values[position])
    if state == nil then
      return fail()
    end
    account.fields[missing[position]] = state
  end
  if first then
    account.expires_ms = tonumber(values[wanted + 1] or '0')
    account.next_hold = tonumber(values[wanted + 2] or '0')
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
  account.ends_ms = math.max(account.ends_ms, ceil_div(at, 1000))
end

local function set_next_hold(index, at)
  local account = accounts[index]
  if account.next_hold ~= at then
    account.next_hold = at
    account.next_hold_changed = true
  end
end

local function write_account(index, account)
  local values = {}
  for name in pairs(account.dirty) do
    values[#values + 1] = name
    values[#values + 1] = encode(account.fields[name])
  end
  if account.next_hold_changed then
    values[#values + 1] = 'h'
    values[#values + 1] = whole(account.next_hold)
  end
  if account.rebuilt then
    values[#values + 1] = 'b'
    values[#values + 1] = '1'
  end
  local extends = account.ends_ms > account.expires_ms
  if extends then
    -- An hour more than needed, so that short windows do not pay for this on every call.
    account.expires_ms = account.ends_ms + HOUR_MS
    values[#values + 1] = 'x'
    values[#values + 1] = whole(account.expires_ms)
  end
  if #values > 0 then
    redis.call('HSET', KEYS[index], unpack(values))
  end
  if extends then
    redis.call('PEXPIREAT', KEYS[index], whole(account.expires_ms))
  end
  for _, move in ipairs(account.moves) do
    redis.call(move[1], KEYS[index + 1], unpack(move, 2))
  end
  if #account.moves > 0 then
    redis.call('PEXPIREAT', KEYS[index + 1], whole(account.expires_ms))
  end
end

-- Purpose: decide operations against their limits, debit all or none of each, and append what is
--   accepted to the shard's stream, as one atomic step. Specified by domain/account.py.
-- KEYS: 1 the shard's meta hash, 2 its stream, then operation and account keys, each once.
-- ARGV: now_us ("0": this server's clock), epoch, source id, operation memory in ms, length of the
--   account prefix, number of operations; then per operation:
--     mode (c consume, r record, k check, j reject), index of its operation key ("0": none),
--     fingerprint, event time in us ("0": now), number of events, payload, reject reason,
--     number of charges; then per charge:
--       index of its account key, field, limit id, meter, amount, limit, on_exceed (r, a, s), kind;
--       kind w: start, turn and end of two windows in a row, number of thresholds, then ppm and
--         units of each; kind g: weight, drain, period in us.
-- Returns: this server's time in us, then one string per operation:
--     G;at;first_seq[;reading]*          granted      P;... the first answer to a repeat
--     R;at;refusing index;retry_us[;reading]*  refused (retry -1: never)
--     U reused   S;now stale windows   O;index overflow   B broken value   E;epoch other epoch
--   A reading is limit_id,meter,state,used,limit,remaining,resets_at_us.
-- Invariant: nothing is written before every operation is evaluated, and XADD is the first write:
--   what can fail, for memory or a wrong type, fails with nothing changed. Lua does not roll back.
-- Cost: HMGET of meta, per operation GET and SET of its record, per account HMGET and HSET, one
--   XADD; PEXPIREAT about once an hour per account. Loops are bounded by the caller's batch.

local HOUR_MS = 3600000
local EXACT_MAX = 9007199254740991

local cursor = 6
local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

local function take_number() return tonumber(take()) end
local function whole(number) return string.format('%.0f', number) end
local function ceil_div(dividend, divisor) return math.ceil(dividend / divisor) end

local now = tonumber(ARGV[1])
if now == 0 then
  -- Read once: on Redis 7.0 two reads in one script differ.
  local clock = redis.call('TIME')
  now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
end
local epoch, source = ARGV[2], ARGV[3]
local memory_ms, prefix_length = tonumber(ARGV[4]), tonumber(ARGV[5])

local meta = redis.call('HMGET', KEYS[1], 'epoch', source)
if meta[1] ~= epoch then
  return { whole(now), 'E;' .. (meta[1] or '') }
end
local sequence = tonumber(meta[2] or '0')

-- Counters as this call sees them: accounts[key index] = {fields = {name = {at, amount, mark}},
-- dirty = {name = true}, expires_ms = ...}; a later operation sees what an earlier one debits.
local accounts = {}
local answers = {}
local entry = {}

local function load_fields(index, names)
  local account = accounts[index]
  if not account then
    account = { fields = {}, dirty = {}, expires_ms = nil }
    accounts[index] = account
  end
  local missing = {}
  for _, name in ipairs(names) do
    if not account.fields[name] then
      missing[#missing + 1] = name
    end
  end
  if #missing == 0 then
    return true
  end
  missing[#missing + 1] = 'x'
  local values = redis.pcall('HMGET', KEYS[index], unpack(missing))
  if values.err then
    return false
  end
  for position = 1, #missing - 1 do
    local at, amount, mark = 0, 0, 0
    if values[position] then
      local a, b, c = string.match(values[position], '^(%d+):(%d+):(%d+)$')
      if not a then
        return false
      end
      at, amount, mark = tonumber(a), tonumber(b), tonumber(c)
    end
    account.fields[missing[position]] = { at, amount, mark }
  end
  account.expires_ms = account.expires_ms or tonumber(values[#missing] or '0')
  return true
end

local function take_charge()
  local charge = {
    key = take_number(), field = take(), limit_id = take(), meter = take(),
    amount = take_number(), limit_text = take(), on_exceed = take(), kind = take(),
  }
  charge.limit = tonumber(charge.limit_text)
  if charge.kind == 'w' then
    charge.starts, charge.turns_text, charge.ends_text = take_number(), take(), take()
    charge.turns, charge.ends = tonumber(charge.turns_text), tonumber(charge.ends_text)
    charge.thresholds = {}
    for index = 1, take_number() do
      charge.thresholds[index] = { take_number(), take_number() }
    end
  else
    charge.weight, charge.drain, charge.period = take_number(), take_number(), take_number()
  end
  return charge
end

local function take_operation()
  local operation = {
    mode = take(), key = take_number(), fingerprint = take(), event_time = take_number(),
    events = take_number(), payload = take(), reason = take(), charges = {},
  }
  for index = 1, take_number() do
    operation.charges[index] = take_charge()
  end
  return operation
end

local function state_of(charge, over, otherwise)
  if not over then
    return otherwise
  end
  return charge.on_exceed == 's' and 's' or 'e'
end

-- resets_at comes as text: a window's is an argument already, and formatting is what costs most.
local function reading(charge, state, used, resets_at)
  return charge.limit_id .. ',' .. charge.meter .. ',' .. state .. ',' .. whole(used) .. ','
    .. charge.limit_text .. ',' .. whole(math.max(0, charge.limit - used)) .. ',' .. resets_at
end

local function evaluate_window(charge, counter, gates, used_at)
  local start, used, mark = charge.starts, 0, 0
  if now >= charge.turns then
    start = charge.turns
  end
  local amount = used_at >= start and charge.amount or 0
  if counter[1] >= start then
    start, used, mark = counter[1], counter[2], counter[3]
  end
  local ends, ends_text = charge.turns, charge.turns_text
  if start >= charge.turns then
    ends, ends_text = charge.ends, charge.ends_text
  end
  local would = used + amount
  local over = would > charge.limit
  local verdict = {
    refuses = over and amount > 0 and gates, overflow = would > EXACT_MAX, ends = ends,
  }
  local function state(units)
    local first = charge.thresholds[1]
    return state_of(charge, over, first and units >= first[2] and 'w' or 'o')
  end
  verdict.before = function() return reading(charge, state(used), used, ends_text) end
  verdict.after = function() return reading(charge, state(would), would, ends_text) end
  verdict.retry = amount <= charge.limit and math.max(1, ends - now) or -1
  if amount > 0 then
    verdict.crossings = {}
    for _, threshold in ipairs(charge.thresholds) do
      if would >= threshold[2] and threshold[1] > mark then
        mark = threshold[1]
        verdict.crossings[#verdict.crossings + 1] = table.concat({
          charge.limit_id, charge.meter, whole(threshold[1]), whole(threshold[2]), whole(would),
          whole(charge.limit), whole(start), whole(ends),
        }, ',')
      end
    end
    verdict.counter = { start, would, mark }
  end
  return verdict
end

local function evaluate_rate(charge, counter, mode, gates, used_at)
  local at = math.max(now, counter[1])
  local debt = counter[2]
  if counter[3] ~= 0 and counter[3] ~= charge.weight then
    debt = math.min(math.floor(debt / counter[3]), charge.limit) * charge.weight
  end
  local brim = charge.limit * charge.weight
  -- Past 2^53 the product is not exact, but then it is more than any debt.
  debt = math.max(0, debt - (at - counter[1]) * charge.drain)
  local amount = used_at >= now - charge.period and charge.amount or 0
  local over = amount > charge.limit or debt + amount * charge.weight > brim
  local after = debt
  if not over then
    after = debt + amount * charge.weight
  elseif amount > 0 and mode == 'r' then
    after = math.max(debt, brim)
  end
  local state = state_of(charge, over and amount > 0, 'o')
  local function read(weight)
    local full_at = whole(at + ceil_div(weight, charge.drain))
    return reading(charge, state, ceil_div(weight, charge.weight), full_at)
  end
  local verdict = {
    refuses = over and amount > 0 and gates,
    before = function() return read(debt) end,
    after = function() return read(after) end,
  }
  verdict.ends = at + ceil_div(after, charge.drain)
  verdict.retry = -1
  if amount <= charge.limit then
    verdict.retry = math.max(1, ceil_div(debt + amount * charge.weight - brim, charge.drain))
  end
  if amount > 0 then
    verdict.counter = { at, after, charge.weight }
  end
  return verdict
end

local function evaluate(operation)
  local used_at = operation.event_time == 0 and now or math.min(operation.event_time, now)
  local verdicts = {}
  for index, charge in ipairs(operation.charges) do
    local counter = accounts[charge.key].fields[charge.field]
    local gates = charge.on_exceed == 'r' and operation.mode ~= 'r'
    if charge.kind == 'w' then
      verdicts[index] = evaluate_window(charge, counter, gates, used_at)
    else
      verdicts[index] = evaluate_rate(charge, counter, operation.mode, gates, used_at)
    end
  end
  return verdicts
end

local function join(head, verdicts, which)
  for _, verdict in ipairs(verdicts) do
    head[#head + 1] = verdict[which]()
  end
  return table.concat(head, ';')
end

local function refusal(verdicts)
  local first, retry = nil, 0
  for index, verdict in ipairs(verdicts) do
    if verdict.refuses then
      first = first or index
      if verdict.retry < 0 or retry < 0 then
        retry = -1
      else
        retry = math.max(retry, verdict.retry)
      end
    end
  end
  if first then
    return join({ 'R', whole(now), whole(first - 1), whole(retry) }, verdicts, 'before')
  end
end

local function apply(operation, verdicts)
  local first_seq = sequence + 1
  sequence = sequence + operation.events
  local suffix = whole(first_seq) .. '+' .. whole(operation.events)
  if operation.reason == '' then
    entry[#entry + 1] = 'u' .. suffix
    entry[#entry + 1] = operation.payload
  else
    entry[#entry + 1] = 'j' .. suffix
    entry[#entry + 1] = operation.reason .. '|' .. operation.payload
  end
  local crossed = 0
  for index, verdict in ipairs(verdicts) do
    local charge = operation.charges[index]
    if verdict.counter then
      local account = accounts[charge.key]
      account.fields[charge.field] = verdict.counter
      account.dirty[charge.field] = true
      account.ends_ms = math.max(account.ends_ms or 0, ceil_div(verdict.ends, 1000))
    end
    for _, crossing in ipairs(verdict.crossings or {}) do
      entry[#entry + 1] = 'x' .. whole(first_seq) .. '.' .. crossed
      entry[#entry + 1] = crossing .. ',' .. string.sub(KEYS[charge.key], prefix_length + 1)
      crossed = crossed + 1
    end
  end
  return join({ 'G', whole(now), whole(first_seq) }, verdicts, 'after')
end

local function in_reach(charges)
  for _, charge in ipairs(charges) do
    if charge.kind == 'w' and (now < charge.starts or now >= charge.ends) then
      return false
    end
  end
  return true
end

-- Operation records as this call sees them, by key index, and those it has to write.
local records, new_records = {}, {}

local function recall(operation)
  local record = records[operation.key]
  if record == nil then
    record = redis.pcall('GET', KEYS[operation.key])
    if type(record) == 'table' then
      return 'B'
    end
    records[operation.key] = record
  end
  if not record then
    return nil
  end
  local fingerprint, at, answer = string.match(record, '^([^;]*);G;(%d+)(.*)$')
  if not fingerprint then
    return 'B'
  end
  if now - tonumber(at) >= memory_ms * 1000 then
    return nil
  end
  if fingerprint ~= operation.fingerprint then
    return 'U'
  end
  return 'P;' .. at .. answer
end

local function decide(operation)
  local known = operation.key > 0 and recall(operation)
  if known then
    return known
  end
  if not in_reach(operation.charges) then
    return 'S;' .. whole(now)
  end
  local wanted = {}
  for _, charge in ipairs(operation.charges) do
    wanted[charge.key] = wanted[charge.key] or {}
    table.insert(wanted[charge.key], charge.field)
  end
  for index, names in pairs(wanted) do
    if not load_fields(index, names) then
      return 'B'
    end
  end
  local verdicts = evaluate(operation)
  local refused = refusal(verdicts)
  if refused then
    return refused
  end
  for index, verdict in ipairs(verdicts) do
    if verdict.overflow then
      return 'O;' .. whole(index - 1)
    end
  end
  if operation.mode == 'k' then
    return join({ 'G', whole(now), '0' }, verdicts, 'before')
  end
  local answer = apply(operation, verdicts)
  if operation.key > 0 then
    local record = operation.fingerprint .. ';' .. answer
    records[operation.key] = record
    new_records[operation.key] = record
  end
  return answer
end

for index = 1, tonumber(ARGV[6]) do
  answers[index] = decide(take_operation())
end

local function write_account(index, account)
  local pairs_to_set = {}
  for name in pairs(account.dirty) do
    local counter = account.fields[name]
    pairs_to_set[#pairs_to_set + 1] = name
    pairs_to_set[#pairs_to_set + 1] =
      whole(counter[1]) .. ':' .. whole(counter[2]) .. ':' .. whole(counter[3])
  end
  if #pairs_to_set == 0 then
    return
  end
  local extends = account.ends_ms > account.expires_ms
  if extends then
    -- An hour more than needed, so that short windows do not pay for this on every call.
    account.expires_ms = account.ends_ms + HOUR_MS
    pairs_to_set[#pairs_to_set + 1] = 'x'
    pairs_to_set[#pairs_to_set + 1] = whole(account.expires_ms)
  end
  redis.call('HSET', KEYS[index], unpack(pairs_to_set))
  if extends then
    redis.call('PEXPIREAT', KEYS[index], whole(account.expires_ms))
  end
end

if #entry > 0 then
  redis.call('XADD', KEYS[2], '*', 't', whole(now), 's', source, 'e', epoch, unpack(entry))
  for index, account in pairs(accounts) do
    write_account(index, account)
  end
  redis.call('HSET', KEYS[1], source, whole(sequence))
  for index, record in pairs(new_records) do
    redis.call('SET', KEYS[index], record, 'PX', whole(memory_ms))
  end
end

return { whole(now), unpack(answers) }

-- Purpose: what every mode does: evaluates its charges, appends to the stream's entry, applies what
--   passes, and remembers its answer.
-- KEYS: those of admit.lua.
-- ARGV: none by itself.
-- Returns: nothing by itself; the first lines end the script where the epoch is another one, or
--   where this server has forgotten numbers that were given out: its data is older than it was.
-- Invariant: `entry`, `new_records` and `tallies` are written by admit.lua, at the end.
-- Cost: HMGET of the meta hash, GET of an operation's record.

local meta = redis.call('HMGET', KEYS[1], 'epoch', source, 'open')
if meta[1] ~= epoch then
  return { 0, 'E;' .. (meta[1] or '') }
end
local sequence = tonumber(meta[2] or '0')
if sequence < known_seq then
  return { 0, 'L;' .. whole(sequence) }
end
-- What was lost and is not rebuilt yet would let a hard limit pass what it must refuse.
local fenced = meta[3] ~= '1'
local grantless = not meta[3]

local entry = {}
local crossed, burned = 0, 0

local function verdicts_of(operation)
  local verdicts = {}
  for index, charge in ipairs(operation.charges) do
    verdicts[index] = evaluate(charge, operation.asks, operation.used_at)
  end
  return verdicts
end

local function join(head, verdicts, which)
  for _, verdict in ipairs(verdicts) do
    head[#head + 1] = verdict.read(verdict[which])
  end
  return table.concat(head, ';')
end

local function read(charge)
  local amount = charge.amount
  charge.amount = 0
  local verdict = evaluate(charge, 'k', now)
  local text = verdict.read(verdict.before)
  charge.amount = amount
  return text
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

-- Appends events to the entry; returns the first one's number, 0 for none.
local function append(operation, payload, events)
  if events == 0 then
    return 0
  end
  local first_seq = sequence + 1
  sequence = sequence + events
  local suffix = whole(first_seq) .. '+' .. whole(events)
  if operation.reason == '' then
    entry[#entry + 1] = 'u' .. suffix
    entry[#entry + 1] = payload
  else
    entry[#entry + 1] = 'j' .. suffix
    entry[#entry + 1] = operation.reason .. '|' .. payload
  end
  return first_seq
end

-- Tells of units that have left a balance for good; other kinds keep no such book.
local function burn(index, name, slots)
  local limit_id = string.match(name, '^([^/]*)/balance$')
  if not limit_id then
    return
  end
  for _, slot in ipairs(slots) do
    burned = burned + 1
    entry[#entry + 1] = 'b' .. burned
    entry[#entry + 1] = limit_id .. ',' .. whole(slot[1]) .. ',' .. whole(slot[2]) .. ','
      .. string.sub(KEYS[index], prefix_length + 1)
  end
end

local function apply(operation, verdicts)
  for index, verdict in ipairs(verdicts) do
    local charge = operation.charges[index]
    if verdict.counter then
      set_field(charge.key, charge.field, verdict.counter)
      keep_until(charge.key, verdict.ends)
      if charge.kind == 'b' and operation.mode ~= 'v' then
        burn(charge.key, charge.field, verdict.slots)
      end
    end
    for _, crossing in ipairs(verdict.crossings or {}) do
      crossed = crossed + 1
      entry[#entry + 1] = 'x' .. crossed
      entry[#entry + 1] = charge.limit_id .. ',' .. charge.meter .. ',' .. whole(crossing[1]) .. ','
        .. whole(crossing[2]) .. ',' .. whole(crossing[3]) .. ',' .. whole(crossing[4]) .. ','
        .. whole(crossing[5]) .. ',' .. whole(crossing[6]) .. ','
        .. string.sub(KEYS[charge.key], prefix_length + 1)
    end
  end
end

-- Operation records as this call sees them, by key index, and those it has to write.
local records, new_records = {}, {}
-- The units of events that were refunded, by key index.
local tallies = {}

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
  local fingerprint, ends, numbered, verdict, answer =
    string.match(record, '^([^;]*);(%d+);([^;]*);([GQ])([^\n]*)')
  if not fingerprint then
    return 'B'
  end
  if now >= tonumber(ends) then
    return nil
  end
  if fingerprint ~= operation.fingerprint then
    return 'U'
  end
  return (verdict == 'G' and 'P;' or 'p;') .. numbered .. answer
end

-- Remembers the answer, with the events that a refund may name.
local function remember(operation, answer, payload)
  if operation.given then
    -- Its calls are remembered with their events, and it without.
    payload = ''
  end
  if operation.key > 0 then
    -- That of a reservation for as long as the reservation is known.
    local ends = now + memory_us + (operation.mode == 'v' and operation.ttl or 0)
    local record = operation.fingerprint .. ';' .. whole(ends) .. ';' .. source .. ';' .. answer
      .. '\n' .. payload
    records[operation.key] = record
    new_records[operation.key] = { record, ends }
  end
  return answer
end

-- Purpose: what every mode does: evaluates its charges, appends to the stream's entry, applies what
--   passes, and remembers its answer.
-- KEYS: those of admit.lua.
-- ARGV: none by itself.
-- Returns: nothing by itself; the first lines end the script where the epoch is another one, or
--   where this server has forgotten numbers that were given out: its data is older than it was.
-- Invariant: `entry` and `new_records` are written by admit.lua, at the end. A record of
--   an operation is \1, its end, then with the size before each, fingerprint, source id, the labels
--   of the answer's readings, and the answer; then the events.
-- Cost: HMGET of the meta hash, GET of an operation's record.

local meta = call('HMGET', KEYS[1], 'epoch', source, 'open')
if meta[1] ~= epoch then
  return { 0, 'E;' .. (meta[1] or '') }
end
local sequence = tonumber(meta[2] or 0)
if sequence < known_seq then
  return { 0, 'L;' .. whole(sequence) }
end
-- What was lost and is not rebuilt yet would let a hard limit pass what it must refuse.
local fenced = meta[3] ~= '1'
local grantless = not meta[3]

local entry = {}
local crossed, burned = 0, 0

-- An answer's numbers, overwritten by the next, and how so many readings are packed.
local numbers, packing, form = {}, nil, nil

-- Packs an answer with the readings of verdicts before (0) or after (4) what is asked.
local function tell(code, first, second, verdicts, shift)
  numbers[1], numbers[2], numbers[3], numbers[4] = code, now, first, second
  local count = #verdicts
  for index = 1, count do
    local verdict, place = verdicts[index], index * 4
    numbers[place + 1], numbers[place + 2] = verdict[shift + 1], verdict[shift + 2]
    numbers[place + 3], numbers[place + 4] = verdict[shift + 3], verdict[shift + 4]
  end
  if count ~= packing then
    packing, form = count, '<' .. string.rep('c1ddd', count + 1)
  end
  return packed(form, unpack(numbers, 1, 4 * count + 4))
end

-- Appends events to the entry; returns the first one's number, 0 for none.
local function append(operation, payload, events)
  if events == 0 then
    return 0
  end
  local first_seq, size = sequence + 1, #entry
  sequence = sequence + events
  local numbered = whole(first_seq) .. (events == 1 and '+1' or '+' .. whole(events))
  local reason = operation.reason
  entry[size + 1] = (reason and 'j' or 'u') .. numbered
  entry[size + 2] = reason and reason .. '|' .. payload or payload
  return first_seq
end

-- Takes up the counters that verdicts come to, and tells of thresholds that were crossed.
local function apply(operation, charges, verdicts)
  for index = 1, #charges do
    local charge, verdict = charges[index], verdicts[index]
    if verdict.writes or verdict.counter then
      local account, field = accounts[charge.key], charge.field
      local state = account.fields[field]
      if verdict.counter then
        account.fields[field] = verdict.counter
      elseif not state then
        account.fields[field] = { verdict.at, verdict.count, verdict.mark }
      else
        if state[1] ~= verdict.at then
          state[1], state[4] = verdict.at, nil
        end
        state[2], state[3] = verdict.count, verdict.mark
      end
      account.dirty[field] = true
      if verdict.ends > account.ends then
        account.ends = verdict.ends
      end
      if charge.kind == 'b' and operation.mode ~= 'v' then
        rare().burn(charge.key, field, verdict.slots)
      end
    end
    if verdict.crossings then
      rare().tell_crossings(charge, verdict.crossings)
    end
  end
end

-- Operation records as this call sees them, by key index, and how long those that it has to write
-- are kept, in ms.
local records, new_records = {}, {}

-- Remembers the answer, with the events that a refund may name.
local function remember(operation, answer, payload, labels)
  if operation.given then
    -- Its calls are remembered with their events, and it without.
    payload = ''
  end
  local index, print = operation.key, operation.fingerprint
  if index > 0 then
    -- That of a reservation for as long as the reservation is known.
    local kept_us = memory_us + (operation.mode == 'v' and operation.ttl or 0)
    labels = labels or operation.charges.labels
    records[index] = packed(
      '<c1dHc0Hc0Hc0Hc0', '\1', now + kept_us, #print, print, #source, source, #labels, labels,
      #answer, answer
    ) .. payload
    new_records[index] = ceil(kept_us / 1000)
    if operation.stem then
      rare().meet_stem(operation.stem, new_records[index])
    end
  end
  return answer
end

-- Evaluates an operation's charges; returns the verdicts, which of them refuses and overflows
-- first, and after how long none refuses.
local function verdicts_of(operation)
  local charges, asks, used_at = operation.charges, operation.asks, operation.used_at
  local verdicts, refusing, overflowing, retry = charges.verdicts, nil, nil, 0
  for index = 1, #charges do
    local verdict = evaluate(charges[index], asks, used_at)
    verdicts[index] = verdict
    if verdict.refuses then
      refusing = refusing or index
      retry = (verdict.retry < 0 or retry < 0) and -1 or max(retry, verdict.retry)
    end
    if verdict.overflow then
      overflowing = overflowing or index
    end
  end
  return verdicts, refusing, overflowing, retry
end

local function charge_all(operation)
  local verdicts, refusing, overflowing, retry = verdicts_of(operation)
  if refusing then
    return tell('R', refusing - 1, retry, verdicts, 0)
  elseif overflowing then
    return 'O;' .. whole(overflowing - 1)
  end
  if operation.mode == 'k' then
    return tell('G', 0, 0, verdicts, 0)
  end
  local first_seq = 0
  if operation.mode == 'v' then
    rare().reserve(operation, verdicts)
  else
    first_seq = append(operation, operation.payload, operation.events)
  end
  apply(operation, operation.charges, verdicts)
  if operation.given then
    rare().remember_given(operation.given, operation.payload, first_seq)
  end
  local answer = tell('G', first_seq, 0, verdicts, 4)
  return remember(operation, answer, first_seq > 0 and operation.payload or '')
end

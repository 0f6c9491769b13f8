-- Purpose: how each kind of limit measures, as domain/limit.py, sliding.py and balance.py specify.
-- KEYS: those of state.lua.
-- ARGV: per charge, the index of its account's hash, field, limit id, meter, amount, limit,
--   on_exceed (r, a, s), kind; then by kind: w (window) start, turn and end of two windows in a
--   row, number of thresholds, ppm and units of each; g (rate) weight, drain, period in us;
--   s (sliding) width in us, buckets; h (concurrency) nothing; b (balance) overdraft, number of low
--   marks, units of each.
-- Returns: verdicts: refuses, overflow, `read`, which makes a text of `before` or `after`, retry in
--   us (-1: never), counter (nil or false: unchanged), crossings, slots {place, units} (where they
--   are held or burned), ends (until when it matters).
-- Invariant: states are never changed in place, as the operation may yet be refused.
-- Cost: no commands; a sliding limit up to 61 buckets, a balance up to 64 grants.

local OVERDRAFT, UNFUNDED, GRANTS_MAX = 0, -1, 64

local function take_charge()
  local charge = {
    key = take_number(), field = take(), limit_id = take(), meter = take(),
    amount = take_number(), limit_text = take(), on_exceed = take(), kind = take(),
    -- Named here so that the table is made at its size: a window's is the one made most often.
    limit = false, starts = false, turns = false, ends = false, turns_text = false,
    ends_text = false, thresholds = false,
  }
  charge.limit = tonumber(charge.limit_text)
  local kind = charge.kind
  if kind == 'w' then
    charge.starts, charge.turns_text, charge.ends_text = take_number(), take(), take()
    charge.turns, charge.ends = tonumber(charge.turns_text), tonumber(charge.ends_text)
    charge.thresholds = {}
    for index = 1, take_number() do
      charge.thresholds[index] = { take_number(), take_number() }
    end
  elseif kind == 'g' then
    charge.weight, charge.drain, charge.period = take_number(), take_number(), take_number()
  elseif kind == 's' then
    charge.width, charge.buckets = take_number(), take_number()
  elseif kind == 'b' then
    charge.overdraft, charge.low_at = take_number(), {}
    for index = 1, take_number() do
      charge.low_at[index] = take_number()
    end
  end
  return charge
end

local function state_of(charge, over, otherwise)
  if not over then
    return otherwise
  end
  return charge.on_exceed == 's' and 's' or 'e'
end

-- resets_at comes as text: a window's is an argument already, and formatting is what costs most.
local function reading(charge, state, used, resets_at, limit)
  local limit_text = limit and whole(limit) or charge.limit_text
  return charge.limit_id .. ',' .. charge.meter .. ',' .. state .. ',' .. whole(used) .. ','
    .. limit_text .. ',' .. whole(math.max(0, (limit or charge.limit) - used)) .. ',' .. resets_at
end

local function evaluate_window(charge, counter, moment)
  local start, used, mark = charge.starts, 0, 0
  if now >= charge.turns then
    start = charge.turns
  end
  local amount = moment.used_at >= start and charge.amount or 0
  if counter and counter[1] >= start then
    start, used, mark = counter[1], counter[2], counter[3]
  end
  local ends, ends_text = charge.turns, charge.turns_text
  if start >= charge.turns then
    ends, ends_text = charge.ends, charge.ends_text
  end
  local would = used + amount
  local over = would > charge.limit
  local crossings
  if amount > 0 then
    for _, threshold in ipairs(charge.thresholds) do
      if would >= threshold[2] and threshold[1] > mark then
        mark = threshold[1]
        crossings = crossings or {}
        crossings[#crossings + 1] = { mark, threshold[2], would, charge.limit, start, ends }
      end
    end
  end
  local function read(units)
    local first = charge.thresholds[1]
    local state = state_of(charge, over, first and units >= first[2] and 'w' or 'o')
    return reading(charge, state, units, ends_text)
  end
  return {
    refuses = over and amount > 0 and moment.gates, overflow = would > EXACT_MAX, ends = ends,
    retry = amount <= charge.limit and math.max(1, ends - now) or -1,
    read = read, before = used, after = would, crossings = crossings,
    counter = amount > 0 and { start, would, mark },
    slots = amount > 0 and moment.mode == 'v' and { { start, amount } },
  }
end

local function evaluate_rate(charge, counter, moment)
  counter = counter or { 0, 0, 0 }
  local at = math.max(now, counter[1])
  local debt = counter[2]
  if counter[3] ~= 0 and counter[3] ~= charge.weight then
    debt = math.min(math.floor(debt / counter[3]), charge.limit) * charge.weight
  end
  local brim = charge.limit * charge.weight
  -- Past 2^53 the product is not exact, but then it is more than any debt.
  debt = math.max(0, debt - (at - counter[1]) * charge.drain)
  local amount = moment.used_at >= now - charge.period and charge.amount or 0
  local over = amount > charge.limit or debt + amount * charge.weight > brim
  local after = debt
  if not over then
    after = debt + amount * charge.weight
  elseif amount > 0 and moment.mode == 'r' then
    after = math.max(debt, brim)
  end
  local state = state_of(charge, over and amount > 0, 'o')
  local function read(weight)
    local full_at = whole(at + ceil_div(weight, charge.drain))
    return reading(charge, state, ceil_div(weight, charge.weight), full_at)
  end
  local verdict = {
    refuses = over and amount > 0 and moment.gates,
    read = read, before = debt, after = after,
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

-- Returns new buckets, rising, with units added to one; a negative number takes away.
local function add_to_bucket(buckets, place, units)
  local result, found = { kind = 's' }, false
  local function append(number, amount)
    if amount > 0 then
      result[#result + 1] = { number, amount }
    end
  end
  for _, bucket in ipairs(buckets) do
    if not found and bucket[1] >= place then
      found = true
      if bucket[1] == place then
        append(place, math.max(0, bucket[2] + units))
      else
        append(place, units)
        append(bucket[1], bucket[2])
      end
    else
      append(bucket[1], bucket[2])
    end
  end
  if not found then
    append(place, units)
  end
  return result
end

local function evaluate_sliding(charge, buckets, moment)
  local first = math.floor(now / charge.width) - charge.buckets
  local live, used = { kind = 's' }, 0
  for _, bucket in ipairs(buckets or {}) do
    if bucket[1] >= first then
      live[#live + 1] = bucket
      used = used + bucket[2]
    end
  end
  local place = math.floor(moment.used_at / charge.width)
  local amount = place >= first and charge.amount or 0
  local would = used + amount
  local over = would > charge.limit
  local after = add_to_bucket(live, place, amount)
  local function leaves(number) return (number + charge.buckets + 1) * charge.width end
  local function read(units)
    local counted = units == used and live or after
    local resets_at = counted[1] and whole(leaves(counted[1][1])) or '0'
    return reading(charge, state_of(charge, over, 'o'), units, resets_at)
  end
  local verdict = {
    refuses = over and amount > 0 and moment.gates, overflow = would > EXACT_MAX,
    read = read, before = used, after = would, ends = leaves(place), retry = -1,
  }
  if charge.amount <= charge.limit then
    local left = used
    verdict.retry = 1
    for _, bucket in ipairs(live) do
      if left + charge.amount <= charge.limit then
        break
      end
      left = left - bucket[2]
      verdict.retry = math.max(1, leaves(bucket[1]) - now)
    end
  end
  if amount > 0 then
    verdict.counter, verdict.slots = after, { { place, amount } }
  end
  return verdict
end

-- A call that holds nothing has ended already: only a reservation takes room.
local function evaluate_concurrency(charge, counter, moment)
  local used = counter and counter[2] or 0
  local would = used + charge.amount
  local over = would > charge.limit
  local holds = moment.mode == 'v' and charge.amount > 0
  local function read(units)
    return reading(charge, state_of(charge, over, 'o'), units, whole(moment.next_hold))
  end
  local verdict = {
    refuses = over and charge.amount > 0 and moment.gates, overflow = would > EXACT_MAX,
    read = read, before = used, after = holds and would or used, ends = 0, retry = -1,
  }
  if charge.amount <= charge.limit then
    verdict.retry = math.max(1, moment.next_hold - now)
  end
  if holds then
    verdict.counter, verdict.slots = { 0, would, 0 }, { { 0, charge.amount } }
  end
  return verdict
end

local function live(grant) return grant.starts <= now and now < grant.expires end

local function left_of_balance(balance)
  local funds = 0
  for _, grant in ipairs(balance.grants) do
    if live(grant) then
      funds = funds + grant.remaining
    end
  end
  return math.max(0, funds - balance.owed), funds
end

local function read_balance(charge, balance, over)
  local used, limit, resets_at = balance.owed, charge.overdraft, EXACT_MAX
  for _, grant in ipairs(balance.grants) do
    if live(grant) then
      used = used + (grant.granted - grant.remaining)
      limit = limit + grant.granted
      resets_at = math.min(resets_at, grant.expires)
    end
  end
  local first = charge.low_at[1]
  local low = first and left_of_balance(balance) <= first
  local state = state_of(charge, over, low and 'w' or 'o')
  used, limit = math.min(used, EXACT_MAX), math.min(limit, EXACT_MAX)
  return reading(charge, state, used, resets_at < EXACT_MAX and whole(resets_at) or '0', limit)
end

local function new_balance(balance, grants)
  return {
    kind = 'b', seq = balance.seq, owed = balance.owed, mark = balance.mark, grants = grants,
  }
end

local function with_remaining(grant, remaining)
  return {
    seq = grant.seq, priority = grant.priority, starts = grant.starts, expires = grant.expires,
    granted = grant.granted, remaining = remaining,
  }
end

local EMPTY_BALANCE = { kind = 'b', seq = 0, owed = 0, mark = 0, grants = {} }

local function evaluate_balance(charge, balance, moment)
  balance = balance or EMPTY_BALANCE
  local amount, total, slots, grants = charge.amount, charge.overdraft, {}, {}
  local _, funds = left_of_balance(balance)
  local over = amount > funds + charge.overdraft - balance.owed
  for _, grant in ipairs(balance.grants) do
    total = total + grant.granted
    local units = live(grant) and math.min(amount, grant.remaining) or 0
    if units > 0 then
      slots[#slots + 1] = { grant.seq, units }
      amount = amount - units
    end
    if now < grant.expires then
      grants[#grants + 1] = with_remaining(grant, grant.remaining - units)
    end
  end
  local taken = new_balance(balance, grants)
  local owed = math.min(amount, math.max(0, charge.overdraft - balance.owed))
  if owed > 0 then
    taken.owed = balance.owed + owed
    slots[#slots + 1] = { OVERDRAFT, owed }
  end
  if amount > owed then
    slots[#slots + 1] = { UNFUNDED, amount - owed }
  end
  local verdict = {
    refuses = over and charge.amount > 0 and moment.gates, overflow = total > EXACT_MAX,
    read = function(read_of) return read_balance(charge, read_of, over) end,
    before = balance, after = taken, ends = EXACT_MAX, retry = -1,
  }
  if charge.amount > 0 then
    local left = left_of_balance(taken)
    verdict.crossings = {}
    for _, units in ipairs(charge.low_at) do
      if left <= units and (balance.mark == 0 or units < balance.mark - 1) then
        verdict.crossings[#verdict.crossings + 1] = { 0, units, left, 0, 0, 0 }
        taken.mark = units + 1
      end
    end
    verdict.counter, verdict.slots = taken, slots
  end
  return verdict
end

local EVALUATE = {
  w = evaluate_window, g = evaluate_rate, s = evaluate_sliding, h = evaluate_concurrency,
  b = evaluate_balance,
}

local function evaluate(charge, mode, used_at)
  local account = accounts[charge.key]
  return EVALUATE[charge.kind](charge, account.fields[charge.field], {
    mode = mode, used_at = used_at, gates = charge.on_exceed == 'r' and mode ~= 'r',
    next_hold = account.next_hold,
  })
end

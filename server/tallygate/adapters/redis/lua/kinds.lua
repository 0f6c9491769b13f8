-- Purpose: the kinds of limit that are met less often: sliding, concurrency and balance, as
--   domain/limit.py, sliding.py and balance.py specify, and grants. Part of `rare`.
-- KEYS: those of state.lua.
-- ARGV: those of limits.lua.
-- Returns: verdicts, as limits.lua has them.
-- Invariant: states are never changed in place, as the operation may yet be refused.
-- Cost: no commands; a sliding limit up to 61 buckets, a balance up to 64 grants.

local OVERDRAFT, UNFUNDED, GRANTS_MAX = 0, -1, 64

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

-- Returns what is stored of a sliding limit or a balance, nil for what cannot be read.
local function decode(text) return decode_buckets(text) or decode_balance(text) end

local function encode(state)
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

local function set_field(index, name, state)
  local account = accounts[index]
  account.fields[name] = state
  account.dirty[name] = true
end

-- Keeps an account at least until then.
local function keep_until(index, at)
  local account = accounts[index]
  account.ends = max(account.ends, at)
end

-- Gives a charge's numbers their names.
local function kind_of(charge, one, two)
  if charge.kind == 's' then
    charge.width, charge.buckets = one, two
  elseif charge.kind == 'b' then
    charge.overdraft, charge.low_at = one, {}
    for index, mark in ipairs(charge.marks) do
      charge.low_at[index] = mark[2]
    end
  end
end

-- Writes a reading into a verdict, behind the first so many.
local function put(verdict, shift, state, used, limit, resets_at)
  verdict[shift + 1], verdict[shift + 2] = state, used
  verdict[shift + 3], verdict[shift + 4] = limit, resets_at
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
        append(place, max(0, bucket[2] + units))
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

local function evaluate_sliding(charge, buckets, mode, used_at)
  local first = math.floor(now / charge.width) - charge.buckets
  local live, used = { kind = 's' }, 0
  for _, bucket in ipairs(buckets or {}) do
    if bucket[1] >= first then
      live[#live + 1] = bucket
      used = used + bucket[2]
    end
  end
  local place = math.floor(used_at / charge.width)
  local amount = place >= first and charge.amount or 0
  local would = used + amount
  local over = would > charge.limit
  local after = add_to_bucket(live, place, amount)
  local function leaves(number) return (number + charge.buckets + 1) * charge.width end
  local verdict, state = charge.verdict, over and charge.over or 'o'
  put(verdict, 0, state, used, charge.limit, live[1] and leaves(live[1][1]) or 0)
  put(verdict, 4, state, would, charge.limit, after[1] and leaves(after[1][1]) or 0)
  verdict.refuses = over and amount > 0 and charge.hard and mode ~= 'r'
  verdict.overflow, verdict.ends, verdict.retry = would > EXACT_MAX, leaves(place), -1
  if charge.amount <= charge.limit then
    local left = used
    verdict.retry = 1
    for _, bucket in ipairs(live) do
      if left + charge.amount <= charge.limit then
        break
      end
      left = left - bucket[2]
      verdict.retry = max(1, leaves(bucket[1]) - now)
    end
  end
  verdict.counter = amount > 0 and after
  verdict.slots = amount > 0 and { { place, amount } }
  return verdict
end

-- A call that holds nothing has ended already: only a reservation takes room.
local function evaluate_concurrency(charge, counter, mode)
  local used, next_hold = counter and counter[2] or 0, accounts[charge.key].next_hold
  local would = used + charge.amount
  local over = would > charge.limit
  local holds = mode == 'v' and charge.amount > 0
  local verdict, state = charge.verdict, over and charge.over or 'o'
  put(verdict, 0, state, used, charge.limit, next_hold)
  put(verdict, 4, state, holds and would or used, charge.limit, next_hold)
  verdict.refuses = over and charge.amount > 0 and charge.hard and mode ~= 'r'
  verdict.overflow, verdict.ends = would > EXACT_MAX, 0
  verdict.retry = charge.amount <= charge.limit and max(1, next_hold - now) or -1
  verdict.writes, verdict.at, verdict.count, verdict.mark = holds, 0, would, 0
  verdict.slots = holds and { { 0, charge.amount } }
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
  return max(0, funds - balance.owed), funds
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
  local state = over and charge.over or low and 'w' or 'o'
  used, limit = math.min(used, EXACT_MAX), math.min(limit, EXACT_MAX)
  return state, used, limit, resets_at < EXACT_MAX and resets_at or 0
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

local function evaluate_balance(charge, balance, mode)
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
  local owed = math.min(amount, max(0, charge.overdraft - balance.owed))
  if owed > 0 then
    taken.owed = balance.owed + owed
    slots[#slots + 1] = { OVERDRAFT, owed }
  end
  if amount > owed then
    slots[#slots + 1] = { UNFUNDED, amount - owed }
  end
  local verdict = charge.verdict
  put(verdict, 0, read_balance(charge, balance, over))
  put(verdict, 4, read_balance(charge, taken, over))
  verdict.refuses = over and charge.amount > 0 and charge.hard and mode ~= 'r'
  verdict.overflow, verdict.ends, verdict.retry = total > EXACT_MAX, EXACT_MAX, -1
  verdict.counter, verdict.slots, verdict.crossings = false, false, false
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

-- Returns the grants with room for one more, or nil: without those expired, then without the
-- oldest that is used up.
local function with_room(grants)
  local kept, oldest = {}, nil
  for _, grant in ipairs(grants) do
    if now < grant.expires then
      kept[#kept + 1] = grant
      if grant.remaining == 0 and (not oldest or grant.seq < oldest.seq) then
        oldest = grant
      end
    end
  end
  if #kept < GRANTS_MAX then
    return kept
  end
  for index, grant in ipairs(kept) do
    if grant == oldest then
      table.remove(kept, index)
      return kept
    end
  end
  return nil
end

local function before(one, other)
  if one.priority ~= other.priority then
    return one.priority < other.priority
  elseif one.expires ~= other.expires then
    return one.expires < other.expires
  end
  return one.seq < other.seq
end

-- Adds the grants that are new; returns what repaid the overdraft and the balance, or nil when
-- there is no room.
local function add_grants(charge, stored, owed, grants)
  local balance, slots = new_balance(stored, stored.grants), {}
  if balance.seq == 0 then
    balance.owed = balance.owed + owed
  end
  for _, grant in ipairs(grants) do
    if grant.seq > balance.seq then
      local repaid = live(grant) and math.min(balance.owed, grant.remaining) or 0
      if repaid > 0 then
        slots[#slots + 1] = { grant.seq, repaid }
        slots[#slots + 1] = { OVERDRAFT, -repaid }
      end
      local kept = with_room(balance.grants)
      local total = charge.overdraft + grant.granted
      for _, other in ipairs(kept or {}) do
        total = total + other.granted
      end
      if not kept or total > EXACT_MAX then
        return nil
      end
      kept[#kept + 1] = with_remaining(grant, grant.remaining - repaid)
      table.sort(kept, before)
      balance.seq, balance.owed, balance.grants = grant.seq, balance.owed - repaid, kept
    end
  end
  -- Low marks that the grants have lifted the balance over are armed again.
  local left, lowest = left_of_balance(balance), nil
  for _, units in ipairs(charge.low_at) do
    if left <= units then
      lowest = units
    end
  end
  if balance.mark > 0 then
    balance.mark = lowest and max(balance.mark, lowest + 1) or 0
  end
  return slots, balance
end

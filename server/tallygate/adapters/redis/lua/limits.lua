-- Purpose: the charges of operations, and how the two commonest kinds of limit measure, a window
--   and a rate, as domain/limit.py specifies; kinds.lua has the others.
-- KEYS: those of state.lua.
-- ARGV: templates, each the charges of operations without their accounts and amounts, so that the
--   operations of a plan share one, whoever's they are: a text with the size before it, LIMIT,METER
--   of each joined by ";"; then per charge kind, on_exceed (r, a, s), limit, three numbers and so
--   many pairs by kind, field, and the pairs. w (window): start, turn and end of two windows in a
--   row; ppm and units of each threshold. g (rate): weight, drain, period in us. s (sliding): width
--   in us, buckets. h (concurrency): nothing. b (balance): overdraft; units of each low mark.
-- Returns: verdicts, each its charge's and overwritten by the next operation: state, used, limit
--   and resets_at before it, and the same four after it; refuses, and then after how many us it may
--   not (retry, -1: never); overflow; the new counter as at, count and mark where it `writes`, else
--   as `counter` (nil or false: unchanged); crossings; slots {place, units} (where they are held or
--   burned); ends (until when it matters).
-- Invariant: states are never changed in place here, as the operation may yet be refused.
-- Cost: no commands; a sliding limit up to 61 buckets, a balance up to 64 grants.

local NO_MARKS = {}

-- Decodes a template, once per call.
local function decode_charges(text)
  local labels, place = unpacked('<Hc0', text)
  local charges, verdicts, size, index = { labels = labels }, {}, #text, 0
  while place <= size do
    local kind, on_exceed, limit, one, two, three, pairs_count, field
    kind, on_exceed, limit, one, two, three, pairs_count, field, place =
      unpacked('<c1c1ddddHHc0', text, place)
    local marks = pairs_count > 0 and {} or NO_MARKS
    for number = 1, pairs_count do
      local ratio, units
      ratio, units, place = unpacked('<dd', text, place)
      marks[number] = { ratio, units }
    end
    local verdict = {
      'o', 0, limit, 0, 'o', 0, limit, 0, refuses = false, overflow = false, retry = 0, at = 0,
      count = 0, mark = 0, writes = false, counter = false, crossings = false, slots = false,
      ends = 0,
    }
    index = index + 1
    local charge = {
      index = index, kind = kind, field = field, limit = limit, hard = on_exceed == 'r',
      over = on_exceed == 's' and 's' or 'e', key = 0, amount = 0, marks = marks, labels = labels,
      verdict = verdict,
    }
    if kind == 'w' then
      charge.starts, charge.turns, charge.ends = one, two, three
    elseif kind == 'g' then
      charge.weight, charge.drain, charge.period = one, two, three
    else
      rare().kind_of(charge, one, two)
    end
    charges[index], verdicts[index] = charge, verdict
  end
  charges.verdicts, charges.spots = verdicts, '<' .. string.rep('Hd', index)
  return charges
end

local function evaluate_window(charge, counter, mode, used_at)
  local verdict, limit, turns = charge.verdict, charge.limit, charge.turns
  local start, used, mark = charge.starts, 0, 0
  if now >= turns then
    start = turns
  end
  local amount = used_at >= start and charge.amount or 0
  if counter and counter[1] >= start then
    start, used, mark = counter[1], counter[2], counter[3]
  end
  local ends = start >= turns and charge.ends or turns
  local would = used + amount
  local over = would > limit
  local marks, crossings = charge.marks, false
  local first = marks[1]
  if amount > 0 and first then
    for _, threshold in ipairs(marks) do
      if would >= threshold[2] and threshold[1] > mark then
        mark = threshold[1]
        crossings = crossings or {}
        crossings[#crossings + 1] = { mark, threshold[2], would, limit, start, ends }
      end
    end
  end
  if over then
    verdict[1], verdict[5] = charge.over, charge.over
  else
    verdict[1] = first and used >= first[2] and 'w' or 'o'
    verdict[5] = first and would >= first[2] and 'w' or 'o'
  end
  verdict[2], verdict[4], verdict[6], verdict[8] = used, ends, would, ends
  verdict.refuses = over and amount > 0 and charge.hard and mode ~= 'r'
  if verdict.refuses then
    verdict.retry = amount <= limit and max(1, ends - now) or -1
  end
  verdict.overflow = would > EXACT_MAX
  verdict.at, verdict.count, verdict.mark, verdict.ends = start, would, mark, ends
  verdict.writes, verdict.crossings = amount > 0, crossings
  verdict.slots = amount > 0 and mode == 'v' and { { start, amount } }
  return verdict
end

local function evaluate_rate(charge, counter, mode, used_at)
  local verdict, limit, weight, drain = charge.verdict, charge.limit, charge.weight, charge.drain
  local at, debt = now, 0
  if counter then
    local from, of_weight = counter[1], counter[3]
    at, debt = from > now and from or now, counter[2]
    if of_weight ~= 0 and of_weight ~= weight then
      debt = math.min(math.floor(debt / of_weight), limit) * weight
    end
    -- Past 2^53 the product is not exact, but then it is more than any debt.
    debt = max(0, debt - (at - from) * drain)
  end
  local brim = limit * weight
  local amount = used_at >= now - charge.period and charge.amount or 0
  local full = debt + amount * weight
  local over = amount > limit or full > brim
  local after = debt
  if not over then
    after = full
  elseif amount > 0 and mode == 'r' then
    after = max(debt, brim)
  end
  local state = over and amount > 0 and charge.over or 'o'
  local ends = at + ceil(after / drain)
  verdict[1], verdict[2], verdict[4] = state, ceil(debt / weight), at + ceil(debt / drain)
  verdict[5], verdict[6], verdict[8] = state, ceil(after / weight), ends
  verdict.refuses = over and amount > 0 and charge.hard and mode ~= 'r'
  if verdict.refuses then
    verdict.retry = amount <= limit and max(1, ceil((full - brim) / drain)) or -1
  end
  verdict.at, verdict.count, verdict.mark, verdict.ends = at, after, weight, ends
  verdict.writes = amount > 0
  return verdict
end

local function evaluate(charge, mode, used_at)
  local account = accounts[charge.key]
  local state = account.fields[charge.field]
  if charge.kind == 'w' then
    return evaluate_window(charge, state, mode, used_at)
  elseif charge.kind == 'g' then
    return evaluate_rate(charge, state, mode, used_at)
  end
  return rare().evaluate[charge.kind](charge, state, mode, used_at)
end

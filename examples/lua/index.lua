-- SPDX-License-Identifier: Apache-2.0 OR MIT
-- Builds an inverted index and word statistics of a folder of texts, in many small
-- steps, and commits every so many. Knows nothing of files that hold its state, of
-- restarts or of where it was: after a crash it goes on behind its last ckpt.commit().
--
--   ckpt-lua index.lua LIST OUTPUT STEPS-PER-COMMIT
--
-- LIST names a text per line. OUTPUT gets the result, the same to the byte however
-- often the program was killed on the way.

local list, output, steps_per_commit = arg[1], arg[2], tonumber(arg[3] or "50")
if not output then
  error("usage: ckpt-lua index.lua LIST OUTPUT [STEPS-PER-COMMIT]", 0)
end

local LINES_PER_STEP = 10

-- A collection marks every object that it keeps, and so changes every page of the state:
-- collect rarely, and a commit has less to save.
collectgarbage("incremental", 400)

-- An open file does not survive, so a text is read whole and closed at once.
local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("[^\n]*") do
    lines[#lines + 1] = line
  end
  return lines
end

-- The state: what a restart must not lose.
local index = {}  -- word -> { count, texts = n, last = text, postings = "text:line text:line ..." }
local lengths = {} -- words of a given length
local pairs_seen = {} -- "word word" -> count, of words that often stand together
local totals = { texts = 0, lines = 0, words = 0, steps = 0 }

local function note(word, text, line)
  local entry = index[word]
  if not entry then
    entry = { count = 0, texts = 0, last = 0, postings = {} }
    index[word] = entry
  end
  entry.count = entry.count + 1
  if entry.last ~= text then
    entry.last, entry.texts = text, entry.texts + 1
    if #entry.postings < 64 then
      entry.postings[#entry.postings + 1] = text << 20 | line
    end
  end
  lengths[#word] = (lengths[#word] or 0) + 1
  totals.words = totals.words + 1
end

local function step(lines, first, text)
  local last = math.min(first + LINES_PER_STEP - 1, #lines)
  for number = first, last do
    local previous
    for word in lines[number]:gmatch("%a[%w_]*") do
      word = word:lower()
      note(word, text, number)
      if previous and #previous > 5 and #word > 5 then
        local pair = previous .. " " .. word
        pairs_seen[pair] = (pairs_seen[pair] or 0) + 1
      end
      previous = word
    end
    totals.lines = totals.lines + 1
  end
  totals.steps = totals.steps + 1
  if totals.steps % steps_per_commit == 0 then
    ckpt.commit()
  end
  return last + 1
end

local names = lines_of(read(list))
for text, name in ipairs(names) do
  if name ~= "" then
    local lines = lines_of(read(name))
    local at = 1
    while at <= #lines do
      at = step(lines, at, text)
    end
    totals.texts = totals.texts + 1
  end
end

-- The result, in an order of its own: that of a table is not the same in every run.
local function by_count(counts, limit)
  local keys = {}
  for key in pairs(counts) do
    keys[#keys + 1] = key
  end
  table.sort(keys, function(a, b)
    if counts[a] ~= counts[b] then
      return counts[a] > counts[b]
    end
    return a < b
  end)
  for place = #keys, limit + 1, -1 do
    keys[place] = nil
  end
  return keys
end

local out = assert(io.open(output .. ".new", "wb"))
out:write(string.format("texts %d lines %d words %d steps %d\n",
  totals.texts, totals.lines, totals.words, totals.steps))
local counts, distinct = {}, 0
for word, entry in pairs(index) do
  counts[word], distinct = entry.count, distinct + 1
end
out:write(string.format("distinct %d\n", distinct))
for _, word in ipairs(by_count(counts, distinct)) do
  local entry = index[word]
  out:write(word, " ", entry.count, " ", entry.texts)
  for _, posting in ipairs(entry.postings) do
    out:write(string.format(" %d:%d", posting >> 20, posting & 0xfffff))
  end
  out:write("\n")
end
for _, pair in ipairs(by_count(pairs_seen, 2000)) do
  out:write("pair ", pair, " ", pairs_seen[pair], "\n")
end
for length = 1, 80 do
  out:write("length ", length, " ", lengths[length] or 0, "\n")
end
assert(out:close())
assert(os.rename(output .. ".new", output))

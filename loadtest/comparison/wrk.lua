-- Posts prepared requests in turn and checks the class index of every answer.
-- wrk -s wrk.lua URL -- FOLDER PATTERN: FOLDER holds the files 1, 2, … (whole HTTP requests) and `expected`, a class
-- index a line. An answer is matched with its request, so each thread must have exactly one connection, unless all
-- expected indices are the same.

local threads = {}

function setup(thread)
  thread:set("position", #threads)
  table.insert(threads, thread)
end

function init(args)
  pattern, requests, expected = args[2], {}, {}
  for line in io.lines(args[1] .. "/expected") do
    expected[#expected + 1] = tonumber(line)
  end
  for i = 1, #expected do
    local file = assert(io.open(args[1] .. "/" .. i, "rb"))
    requests[i] = file:read("*a")
    file:close()
  end
  ok, wrong, turn = 0, 0, 0
end

function request()
  turn = position % #requests + 1
  position = position + 1
  return requests[turn]
end

function response(status, headers, body)
  if status == 200 then
    ok = ok + 1
    if tonumber(string.match(body, pattern)) ~= expected[turn] then
      wrong = wrong + 1
    end
  end
end

function done(summary, latency, requests)
  local ok, wrong, errors = 0, 0, summary.errors
  for _, thread in ipairs(threads) do
    ok = ok + thread:get("ok")
    wrong = wrong + thread:get("wrong")
  end
  io.write(string.format(
    '\nRESULT {"microseconds": %d, "requests": %d, "wrong": %d, "failed": %d, "p50": %.1f, "p99": %.1f}\n',
    summary.duration, ok, wrong,
    summary.requests - ok + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end

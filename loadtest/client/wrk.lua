-- Post prepared requests in turn and write a line for every response.
-- wrk -s wrk.lua URL -- FOLDER PATTERN COUNT THREADS: FOLDER holds the files 0, 1, … (COUNT whole HTTP requests). Each
-- thread takes every THREADS-th of them, so that all together hold each about once, and writes to FOLDER/answers-N a
-- line of position, status, class index (-1: none) and microseconds. A response is matched with its request, so each
-- thread must have exactly one connection. wrk's own percentiles aren't used: they include responses other than 200
-- and samples that wrk adds for requests which it did not send in time because of a slow response.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } halftone_time;
  int clock_gettime(int clock, halftone_time *time);
]]
local MONOTONIC = 1
local time = ffi.new("halftone_time")
local threads = 0

local function microseconds()
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.seconds) * 1e6 + tonumber(time.nanoseconds) / 1e3
end

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  local folder, count, step = args[1], tonumber(args[3]), tonumber(args[4])
  pattern, requests, positions = args[2], {}, {}
  for position = number % count, count - 1, step do
    local file = assert(io.open(folder .. "/" .. position, "rb"))
    requests[#requests + 1] = file:read("*a")
    positions[#positions + 1] = position
    file:close()
  end
  -- Written out when wrk ends.
  answers = assert(io.open(folder .. "/answers-" .. number, "w"))
  turn = 0
end

function request()
  turn = turn % #requests + 1
  start = microseconds()
  return requests[turn]
end

function response(status, headers, body)
  local taken = microseconds() - start
  local index = string.match(body, pattern) or -1
  answers:write(positions[turn], " ", status, " ", index, " ", string.format("%.1f", taken), "\n")
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"microseconds": %d, "unanswered": %d}\n',
    summary.duration, errors.connect + errors.read + errors.write + errors.timeout))
end

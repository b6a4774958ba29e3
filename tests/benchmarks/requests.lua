-- What wrk sends: a request for each line of a file, which has the path and, after a tab, the body.
-- Arguments: the method, the file, "cycle" or "once", milliseconds that a connection waits between its
-- requests, and the Authorization header, if any.

local requests, sent, cycles = {}, 0, true

function init(args)
  cycles = args[3] == "cycle"
  local pause = tonumber(args[4])
  if pause > 0 then delay = function() return pause end end
  for line in io.lines(args[2]) do
    local path, body = line:match("^([^\t]*)\t?(.*)$")
    local headers = {}
    if body ~= "" then headers["Content-Type"] = "application/json" else body = nil end
    if args[5] then headers["Authorization"] = args[5] end
    requests[#requests + 1] = wrk.format(args[1], path, headers, body)
  end
end

function request()
  sent = sent + 1
  -- The last one again where each is good for once: its refusal is counted, and tells that there were too few.
  return requests[cycles and (sent - 1) % #requests + 1 or math.min(sent, #requests)]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'RESULT {"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "refused": %d, "errors": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end

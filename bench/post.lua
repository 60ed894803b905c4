-- wrk script of bench/side-by-side: POSTs one of the bodies in the file named by BODIES (one JSON document per line), in turn.
local bodies = {}
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
local i = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function request()
  i = i % #bodies + 1
  return wrk.format("POST", "/v1/chat/completions", nil, bodies[i])
end

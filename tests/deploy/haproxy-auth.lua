-- Asks signer's /auth whether to let a request through; see haproxy.cfg. HAProxy 2.6 or later (httpclient).
-- Change: the address of signer.
local AUTH = "http://127.0.0.1:8000/auth?"
-- Milliseconds; a question without an answer is asked four times.
local TIMEOUT = 500
local IDENTITY = { "x-token-subject", "x-token-scope", "x-token-id", "x-token-client" }

-- Nothing but the token goes to signer; of several headers all, as the application would see them.
local function ask(txn, demands)
  local sent = txn.http:req_get_headers()
  return core.httpclient():get({
    url = AUTH .. demands,
    headers = { authorization = sent["authorization"], cookie = sent["cookie"] },
    timeout = TIMEOUT,
  })
end

-- Ends the request with 401 or 403 and signer's challenge; whatever else happened is 503.
local function refuse(txn, answer)
  local status = answer.status
  local reply = txn:reply({ status = (status == 401 or status == 403) and status or 503 })
  for _, value in pairs(answer.headers and answer.headers["www-authenticate"] or {}) do
    reply:add_header("www-authenticate", value)
  end
  txn:done(reply)
end

core.register_action("signer", { "http-req" }, function(txn, demands)
  local answer = ask(txn, demands)
  if answer.status ~= 200 then
    refuse(txn, answer)
  end
  for _, name in ipairs(IDENTITY) do
    txn.http:req_set_header(name, answer.headers[name][0])
  end
  -- Last: haproxy.cfg lets nothing pass without it.
  txn:set_var("txn.signer", "admitted")
end, 1)

// token-introspection, for resource servers: introspection with Basic, or with a credential as Bearer.
import assert from "node:assert/strict";
import tokenIntrospection from "token-introspection";

const { SERVICE_URL, CLIENT_ID, CLIENT_SECRET } = process.env;
const { IntrospectionError, TokenNotActiveError } = tokenIntrospection.errors;
const endpoint = `${SERVICE_URL}/oauth/introspect`;

const post = async (path, form) => {
  const credentials = { client_id: CLIENT_ID, client_secret: CLIENT_SECRET };
  const body = new URLSearchParams({ ...credentials, ...form });
  const answer = await fetch(`${SERVICE_URL}${path}`, { method: "POST", body });
  assert.equal(answer.status, 200);
  return answer.json();
};

for (const access of [{ client_id: CLIENT_ID, client_secret: CLIENT_SECRET }, { access_token: CLIENT_SECRET }]) {
  const introspect = tokenIntrospection({ endpoint, ...access });
  const { access_token: token } = await post("/oauth/token", { grant_type: "client_credentials" });

  const told = await introspect(token, "access_token");
  assert.equal(told.active, true);
  assert.equal(told.client_id, CLIENT_ID);
  assert.equal(told.scope, "read write");

  await post("/oauth/revoke", { token });
  await assert.rejects(introspect(token), TokenNotActiveError);
  await assert.rejects(introspect("unknown"), TokenNotActiveError);
}

// A refused credential must not look like an inactive token.
for (const access of [{ client_id: CLIENT_ID, client_secret: "wrong" }, { access_token: "wrong" }]) {
  await assert.rejects(tokenIntrospection({ endpoint, ...access })("unknown"), (error) => {
    assert.ok(error instanceof IntrospectionError && !(error instanceof TokenNotActiveError), error);
    assert.match(error.message, /401 Unauthorized/);
    assert.match(error.message, /"error":"invalid_client"/);
    return true;
  });
}

// simple-oauth2, which knows no discovery: grant and revocation at the paths it takes for granted.
import assert from "node:assert/strict";
import { ClientCredentials } from "simple-oauth2";

const { SERVICE_URL, CLIENT_ID, CLIENT_SECRET } = process.env;

const clientOf = (secret, options) =>
  new ClientCredentials({ client: { id: CLIENT_ID, secret }, auth: { tokenHost: SERVICE_URL }, options });

const isActive = async (token) => {
  const form = { client_id: CLIENT_ID, client_secret: CLIENT_SECRET, token };
  const answer = await fetch(`${SERVICE_URL}/oauth/introspect`, { method: "POST", body: new URLSearchParams(form) });
  assert.equal(answer.status, 200);
  return (await answer.json()).active;
};

// Basic percent-encoded (strict) and raw (loose), and the form.
for (const options of [
  { authorizationMethod: "header", credentialsEncodingMode: "strict" },
  { authorizationMethod: "header", credentialsEncodingMode: "loose" },
  { authorizationMethod: "body" },
]) {
  const granted = await clientOf(CLIENT_SECRET, options).getToken({ scope: ["read", "write"] });
  assert.equal(granted.token.token_type, "Bearer");
  assert.equal(granted.token.scope, "read write");
  assert.equal(granted.expired(), false);
  // Within a day: the library makes a Date of expires_in, whatever it is.
  assert.equal(granted.expired(24 * 60 * 60), true);

  assert.equal(await isActive(granted.token.access_token), true);
  assert.deepEqual(await granted.revoke("access_token"), {});
  assert.equal(await isActive(granted.token.access_token), false);

  await assert.rejects(clientOf("wrong", options).getToken({}), (error) => {
    assert.ok(error.isBoom, error);
    assert.equal(error.output.statusCode, 401);
    assert.equal(error.data.payload.error, "invalid_client");
    assert.match(error.data.headers["www-authenticate"], /^Basic realm="/);
    return true;
  });
  await assert.rejects(clientOf(CLIENT_SECRET, options).getToken({ scope: "admin" }), (error) => {
    assert.equal(error.output.statusCode, 400);
    assert.equal(error.data.payload.error, "invalid_scope");
    return true;
  });
}

// RFC 6749 has forms only: what is sent as JSON is refused, with a reason.
const json = { authorizationMethod: "header", bodyFormat: "json" };
await assert.rejects(clientOf(CLIENT_SECRET, json).getToken({}), (error) => {
  assert.equal(error.output.statusCode, 400);
  assert.equal(error.data.payload.error, "invalid_request");
  return true;
});

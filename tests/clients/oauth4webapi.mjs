// oauth4webapi, which takes every answer apart by the RFC: discovery, grant, introspection and revocation.
import assert from "node:assert/strict";
import * as oauth from "oauth4webapi";

const { SERVICE_URL, CLIENT_ID, CLIENT_SECRET } = process.env;
const insecure = { [oauth.allowInsecureRequests]: true };
const issuer = new URL(SERVICE_URL);
const client = { client_id: CLIENT_ID };

const found = await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...insecure });
const server = await oauth.processDiscoveryResponse(issuer, found);
assert.deepEqual(server.grant_types_supported, ["client_credentials"]);

const grant = async (authentication, parameters) => {
  const answer = await oauth.clientCredentialsGrantRequest(server, client, authentication, parameters, insecure);
  return oauth.processClientCredentialsResponse(server, client, answer);
};
const introspect = async (authentication, token, options = {}) => {
  const answer = await oauth.introspectionRequest(server, client, authentication, token, { ...options, ...insecure });
  return oauth.processIntrospectionResponse(server, client, answer);
};
const revoke = async (authentication, token) =>
  oauth.processRevocationResponse(await oauth.revocationRequest(server, client, authentication, token, insecure));

// The error a call ends in. (assert.rejects takes no check that waits, and the body must be waited for.)
const refusal = (promise) => promise.then(assert.fail, (error) => error);

const methods = {
  client_secret_basic: oauth.ClientSecretBasic,
  client_secret_post: oauth.ClientSecretPost,
};
for (const [name, method] of Object.entries(methods)) {
  assert.ok(server.token_endpoint_auth_methods_supported.includes(name));
  assert.ok(server.introspection_endpoint_auth_methods_supported.includes(name));
  assert.ok(server.revocation_endpoint_auth_methods_supported.includes(name));
  const right = method(CLIENT_SECRET);

  const granted = await grant(right, { scope: "read" });
  // The library writes the type in small letters (RFC 6749, section 5.1: case does not matter).
  assert.equal(granted.token_type, "bearer");
  assert.equal(granted.scope, "read");
  assert.ok(granted.expires_in > 0 && granted.expires_in <= 24 * 60 * 60, `expires_in ${granted.expires_in}`);
  assert.equal(granted.refresh_token, undefined);
  assert.equal((await grant(right, {})).scope, "read write");

  const hint = { additionalParameters: { token_type_hint: "access_token" } };
  const told = await introspect(right, granted.access_token, hint);
  assert.equal(told.active, true);
  assert.equal(told.iss, server.issuer);
  assert.equal(told.client_id, CLIENT_ID);
  assert.equal(told.scope, "read");
  assert.equal(told.exp - told.iat, granted.expires_in);

  await revoke(right, granted.access_token);
  await revoke(right, granted.access_token);
  await revoke(right, "unknown");
  assert.deepEqual(await introspect(right, granted.access_token), { active: false });
  assert.deepEqual(await introspect(right, "unknown"), { active: false });

  const wrong = method("wrong");
  for (const call of [() => grant(wrong, {}), () => introspect(wrong, "x"), () => revoke(wrong, "x")]) {
    const error = await refusal(call());
    assert.ok(error instanceof oauth.WWWAuthenticateChallengeError, error);
    assert.equal(error.status, 401);
    assert.deepEqual(error.cause, [{ scheme: "basic", parameters: { realm: "signer" } }]);
    assert.equal((await error.response.json()).error, "invalid_client");
  }

  const beyond = await refusal(grant(right, { scope: "admin" }));
  assert.ok(beyond instanceof oauth.ResponseBodyError, beyond);
  assert.deepEqual([beyond.status, beyond.error], [400, "invalid_scope"]);
  assert.ok(beyond.error_description);

  const answer = await oauth.genericTokenEndpointRequest(server, client, right, "urn:example:none", {}, insecure);
  const strange = await refusal(oauth.processGenericTokenEndpointResponse(server, client, answer));
  assert.ok(strange instanceof oauth.ResponseBodyError, strange);
  assert.deepEqual([strange.status, strange.error], [400, "unsupported_grant_type"]);
}

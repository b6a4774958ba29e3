// openid-client, the library most Node programs use: discovery, grant, introspection and revocation.
import assert from "node:assert/strict";
import * as client from "openid-client";

const { SERVICE_URL, CLIENT_ID, CLIENT_SECRET } = process.env;

const discover = (authentication) =>
  client.discovery(new URL(SERVICE_URL), CLIENT_ID, undefined, authentication, {
    algorithm: "oauth2",
    execute: [client.allowInsecureRequests],
  });

// The error a call ends in. (assert.rejects takes no check that waits, and the body must be waited for.)
const refusal = (promise) => promise.then(assert.fail, (error) => error);

for (const method of [client.ClientSecretBasic, client.ClientSecretPost]) {
  const service = await discover(method(CLIENT_SECRET));
  assert.equal(new URL(service.serverMetadata().issuer).href, new URL(SERVICE_URL).href);

  const granted = await client.clientCredentialsGrant(service, { scope: "read" });
  assert.equal(granted.token_type, "bearer");
  assert.equal(granted.scope, "read");
  assert.ok(granted.expiresIn() > 0 && granted.expiresIn() <= 24 * 60 * 60, `expires in ${granted.expiresIn()}`);

  const told = await client.tokenIntrospection(service, granted.access_token, { token_type_hint: "access_token" });
  assert.equal(told.active, true);
  assert.equal(told.sub, CLIENT_ID);
  assert.equal(told.scope, "read");

  await client.tokenRevocation(service, granted.access_token, { token_type_hint: "access_token" });
  await client.tokenRevocation(service, granted.access_token);
  assert.deepEqual(await client.tokenIntrospection(service, granted.access_token), { active: false });

  const stranger = await discover(method("wrong"));
  for (const call of [
    () => client.clientCredentialsGrant(stranger),
    () => client.tokenIntrospection(stranger, "x"),
    () => client.tokenRevocation(stranger, "x"),
  ]) {
    const error = await refusal(call());
    assert.ok(error instanceof client.WWWAuthenticateChallengeError, error);
    assert.equal(error.status, 401);
    assert.deepEqual(error.cause, [{ scheme: "basic", parameters: { realm: "signer" } }]);
    assert.equal((await error.response.json()).error, "invalid_client");
  }

  const beyond = await refusal(client.clientCredentialsGrant(service, { scope: "admin" }));
  assert.ok(beyond instanceof client.ResponseBodyError, beyond);
  assert.deepEqual([beyond.status, beyond.error], [400, "invalid_scope"]);
}

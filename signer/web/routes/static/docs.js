"use strict";

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  // A credential is forgotten with the page.
  persistAuthorization: false,
  // No link may point this page at another document or server.
  queryConfigEnabled: false,
  // Its default tells a service on another host which document is shown.
  validatorUrl: null,
});

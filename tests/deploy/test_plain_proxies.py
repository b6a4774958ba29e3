"""Gateways with their defaults in front of the development service, which must not mistake their requests for
local ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.gateways import Apache, Caddy, Envoy, Gateway, HAProxy, Nginx
from support.service import Service

#: By the file that each gateway reads: only where to listen (8080) and what is behind (8000).
PLAIN = {
    "nginx.conf": "server { listen 127.0.0.1:8080; location / { proxy_pass http://127.0.0.1:8000; } }",
    "Caddyfile": "{\n admin off\n auto_https off\n}\nhttp://:8080 {\n reverse_proxy 127.0.0.1:8000\n}\n",
    "apache.conf": "Listen 127.0.0.1:8080\nProxyPass / http://127.0.0.1:8000/\n",
    "haproxy.cfg": """
defaults
  mode http
  timeout client 30s
  timeout connect 30s
  timeout server 30s
frontend all
  bind 127.0.0.1:8080
  default_backend signer
backend signer
  server signer 127.0.0.1:8000
""",
    "haproxy-auth.lua": "",
    "envoy.yaml": """
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: all
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: signer}}]}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: signer
    load_assignment:
      cluster_name: signer
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8000}}}}]}]
""",
}
#: The host that a stranger claims: the worst case. HAProxy passes it on and adds nothing.
HOSTS: dict[type[Gateway], str] = {
    Nginx: "localhost", Caddy: "localhost", Apache: "localhost", Envoy: "localhost", HAProxy: "tokens.example"
}  # fmt: skip


@pytest.fixture(params=HOSTS, ids=lambda kind: kind.__name__.lower())
def gateway(request: pytest.FixtureRequest, development: Service, tmp_path: Path) -> Iterator[Gateway]:
    """Each of them, with only what must be configured."""
    kind: type[Gateway] = request.param
    if kind.program() is None:
        pytest.skip(f"needs {' or '.join(kind.programs)}, with the modules that its configuration names")
    plain = type(kind.__name__, (kind,), {"shipped": shipped})
    with plain(tmp_path, development.port, 0) as running:
        yield running


def shipped(gateway: Gateway, name: str, changes: object = None) -> Path:
    """The configuration, in place of the file in this folder."""
    text = PLAIN[name].replace("8080", str(gateway.port)).replace("8000", str(gateway.signer))
    copy = gateway.directory / name
    copy.write_text(text)
    return copy


def test_what_a_plain_proxy_passes_on_is_refused(gateway: Gateway) -> None:
    """The whole world would otherwise have the rights of this machine's users."""
    host = next(host for kind, host in HOSTS.items() if isinstance(gateway, kind))
    for method, path in (("POST", "/app/token"), ("GET", "/healthz")):
        reply = gateway.call(method, path, ("Host", host))
        assert (reply.status, reply.json["code"]) == (403, "development_only")

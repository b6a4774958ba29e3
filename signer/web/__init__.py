"""The service over HTTP.

A request takes one of two ways. Both run the same handler and give the same bytes.

    short way: GET /app/valid/{token}         Starlette's way: every other request
               and POST /app/token

    client                                    client
      | bytes                                   | bytes
    connections/plain.PlainWay                connections/protocol.CappedProtocol
      | reads one whole, plain request          | connections/parser, then a task
    fastpath/front.Front.at_once              fastpath/front.Front.__call__
      | request id, log, metrics                | request id, log, metrics
    fastpath/shortcut.Shortcut                access/cors, access/development (if set)
      | no task, no messages                    |
    fastpath/dispatch.Dispatch.answer <------ fastpath/dispatch.Dispatch.__call__
      |                                         | only paths that it does not know
      |                                       Starlette's router
      |                                         |
    a handler in routes/, with access/callers.Guard and messages/bodies

The short way gives up at any step, before it has changed anything, and the request goes the other way: a
request that is not plain, a handler that would wait for a disk or a network, or a middleware (CORS, the
development service) that may decide about any request. With trusted proxies, access/proxies stands before
Front on both ways.

Folders:
    connections/  bytes to requests, and answers to bytes: HTTP parser, time limits, event loop
    fastpath/     the entrance (Front), and the way from a path to its handler
    access/       who can call, from where, and how often
    routes/       the table of routes, their handlers, the OpenAPI document and the pages that show it
    messages/     request bodies, answers, errors as answers
    telemetry/    request log, metrics, and the call that both report
    server/       processes: start, workers, restart, end
    app.py        puts all of these together
    loop.py, protocol.py  former places of two names that uvicorn's command line may use
"""

from .app import create_app
from .server.run import load, serve

__all__ = ["create_app", "load", "serve"]

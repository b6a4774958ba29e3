"""Every default, limit and margin, once. A module that obeys one imports it from here."""

from typing import Final

# How long things live, in seconds.

DEFAULT_TTL: Final = 60 * 60
DEFAULT_MAX_TTL: Final = 90 * 24 * 60 * 60
#: Ten years: the most that can be configured.
LONGEST_TTL: Final = 10 * 366 * 24 * 60 * 60
CODE_TTL: Final = 10 * 60
#: How far in the future a token may have been issued, because clocks disagree.
DEFAULT_LEEWAY: Final = 10
#: How long a token that was rotated can be rotated again, with the same result: a retry, not a theft.
DEFAULT_GRACE: Final = 30

# Guesses at codes of six digits.

#: Per challenge: a chance of 1 in 200,000.
CODE_ATTEMPTS: Final = 5
#: Per subject, in any sixty minutes, whatever the number of challenges.
SUBJECT_ATTEMPTS: Final = 20

# The list: what it keeps, and for how long.

#: Seconds by which rows outlive their token, on top of the leeway. A purge at exactly `exp` would allow
#: replay on a machine whose clock is slow.
PURGE_MARGIN: Final = 300
#: Seconds by which the row of a revoked subject outlives the longest token. If a clock was wrong when the
#: token was issued or the subject revoked, the row does not show it.
GROUP_MARGIN: Final = 24 * 60 * 60
#: Rows that one step of a purge deletes. It takes a few milliseconds, and a revocation waits no longer.
PURGE_STEP: Final = 1000
#: Seconds between two steps of a purge, in which other changes are made.
PURGE_PAUSE: Final = 0.001
#: Number of changes that a list remembers. A copy that is further behind is loaded anew.
LOG_SIZE: Final = 1 << 16
#: Rows that a copy in memory holds at most.
MAX_ROWS: Final = 1 << 20
#: Seconds until a process notices that the files of an SQLite list were deleted, exchanged or changed by
#: another program.
TRUST: Final = 0.1
#: Generations, and milliseconds, by which a list can be ahead of a copy that is within its bound. More than
#: the list gives out in that time, and more than clocks disagree by.
UNHEARD: Final = 5 * 60 * 1000
#: Groups that one look-up can name. A token belongs to five: those of its id, subject, session and client,
#: and of the session at that client. A new token is looked up together with the credential that authorises
#: it.
MAX_GROUPS: Final = 8

# Sizes of what is accepted.

#: Bytes of a secret: as long as the digest (RFC 2104, section 3).
MIN_KEY_BYTES: Final = 32
#: Characters of a token.
MAX_TOKEN_LENGTH: Final = 4096
#: Nested levels of `data`. itsdangerous itself decodes recursively and would fail on deeper JSON.
MAX_DATA_DEPTH: Final = 32
#: Bytes of the head of a request: its first line and its headers. The framing of a body in chunks (sizes,
#: extensions, trailers) may exceed the body by as much.
MAX_HEAD: Final = 16 * 1024
MAX_HEADERS: Final = 100
#: Fields of a form.
MAX_FIELDS: Final = 64
#: Bytes of a body. A token has MAX_TOKEN_LENGTH characters at most, and JSON can write one in six bytes.
MAX_BODY: Final = 64 * 1024
#: Bytes of a body with many tokens.
MAX_BATCH_BODY: Final = 512 * 1024
#: Tokens that one request can issue, and validate.
MAX_ISSUED: Final = 100
MAX_VALIDATED: Final = 1000
#: Characters of a cursor of the feed: more than the longest names in a list need.
MAX_CURSOR: Final = 8192
#: Bytes of a file that holds one setting, such as SECRET_KEY_FILE.
MAX_SETTING_FILE: Final = 64 * 1024
#: Bytes of a line of the audit trail. A pipe takes as much at once (PIPE_BUF), so that lines of several
#: workers do not mix.
MAX_LINE: Final = 4096

# How long a caller waits for the list, in seconds.

#: For a change of an SQLite file, while other processes and threads make theirs.
FILE_TIMEOUT: Final = 4.0
#: For any call to PostgreSQL, Redis or another service.
ENGINE_TIMEOUT: Final = 2.0
#: In the event loop, for a list on a local disk.
PATIENCE: Final = 0.25
#: In the service, for a look-up in a thread. Disks and engines have shorter limits of their own, as far as
#: they obey them.
ANSWER_TIMEOUT: Final = 5.0
#: In the service, for a change. It must begin a second before that: once its caller was told that it has not
#: been made, it must not be made.
WRITE_TIMEOUT: Final = 5.0
#: For a reader of the audit trail on standard output that does not read. Less than the caller of a change
#: waits, so that the caller is told that the trail is the reason.
AUDIT_TIMEOUT: Final = 3.0

# How many wait. When there are more, they are refused at once: a slow list must not collect callers.

#: Threads that ask the list at the same time.
THREADS: Final = 4
#: Callers that use one of these threads, or wait for one.
MOST_WAITING: Final = 256
#: Callers that wait until a copy has caught up with its list.
MOST_CATCHING_UP: Final = 4096
#: Changes that are made together. They take a few milliseconds, in which no other process changes the list.
MOST_TOGETHER: Final = 64
#: Callers that a rate limit remembers, at some hundred bytes each: a stranger chooses how many addresses to
#: use.
MAX_WINDOWS: Final = 100_000

# How long a connection may remain in one state, in seconds.

#: From the first byte of a request's head to the last.
HEAD_TIME: Final = 10.0
#: For a whole body. A slow sender occupies a connection and delays a shut-down.
BODY_TIMEOUT: Final = 10.0
#: In this time a client must accept LEAST_TAKEN bytes of an answer, or the rest of it.
TAKE_TIME: Final = 30.0
LEAST_TAKEN: Final = 16 * 1024
#: The time for which, and the bytes that, the service reads from a client that goes on sending after its last
#: answer. To close at once would reset the connection, and the client might lose the answer (RFC 9112,
#: section 9.6).
LINGER_TIME: Final = 5.0
MOST_IGNORED: Final = 1024 * 1024
#: When the server ends, an idle connection still gets an answer for this time: a client that sends a request
#: at this moment would otherwise find it closed.
DRAIN_TIME: Final = 1.0

# Processes of the service, in seconds.

#: A shut-down waits for requests under way; uvicorn alone waits without limit.
SHUTDOWN_TIMEOUT: Final = 10
#: A new worker must serve by then. On a busy machine Python alone may take many seconds to start.
BEGIN_TIMEOUT: Final = 60.0
#: A worker that was told to end is killed after this time.
END_TIMEOUT: Final = 15.0
#: The service gives up when so many times as many workers as there are have ended before they served, and for
#: at least so long: a list across a network may be back by then.
ATTEMPTS: Final = 3
ATTEMPTS_TIME: Final = 15.0
#: For so long, one result of /readyz is the answer for everybody: a check reads the whole list and writes to
#: it.
READINESS: Final = 1.0

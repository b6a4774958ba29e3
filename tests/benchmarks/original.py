"""A stand-in for the original service, for comparison: its three routes, written from its HTTP contract.

It is not the code of the original. Where the contract is silent, it does what such services do: FastAPI with
a session of async SQLAlchemy for each request, on aiosqlite, all with their defaults (pool, journal,
isolation); a table with an integer key and the text of the token in a unique column, which has an index;
tokens made by itsdangerous from a random id; and a row for every token that was issued. It is served by
uvicorn with its defaults, which write an access log.

`python -m uvicorn benchmarks.original:app` serves the table in DATABASE_URL.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import Column, DateTime, Integer, String, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import declarative_base

_LIFE = timedelta(minutes=int(os.environ.get("TOKEN_TTL_MINUTES", "60")))
_serializer = URLSafeTimedSerializer(os.environ.get("SECRET_KEY", "a-key-of-more-than-thirty-two-bytes"))
_engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///./original.db"))
_sessions = async_sessionmaker(_engine)
_Base: Any = declarative_base()


class Token(_Base):  # type: ignore[misc]  # SQLAlchemy makes it as it runs
    """A token that was issued."""

    __tablename__ = "tokens"

    id = Column(Integer, primary_key=True)
    token = Column(String, unique=True, index=True, nullable=False)
    created_at = Column(DateTime, nullable=False)
    expires_at = Column(DateTime, nullable=False)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with _engine.begin() as connection:
        await connection.run_sync(_Base.metadata.create_all)
    yield
    await _engine.dispose()


async def _session() -> AsyncIterator[Any]:
    async with _sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(_session)]
app = FastAPI(lifespan=_lifespan)


@app.post("/app/token")
async def issue(session: Session) -> dict[str, Any]:
    """A new token, stored in the table."""
    token = _made()
    now = _now()
    session.add(Token(token=token, created_at=now, expires_at=now + _LIFE))
    await session.commit()
    return {"status_code": 200, "token": token}


@app.get("/app/valid/{token}")
async def is_valid(token: str, session: Session) -> dict[str, Any]:
    """Whether the token is in the table and has not expired."""
    found = (await session.execute(select(Token).where(Token.token == token))).scalar_one_or_none()
    return {"status_code": 200, "status": found is not None and found.expires_at > _now()}


@app.delete("/app/clear/all/tokens")
async def purge(session: Session) -> dict[str, Any]:
    """Delete what has expired."""
    await session.execute(delete(Token).where(Token.expires_at <= _now()))
    await session.commit()
    return {"status_code": 200, "status": True}


async def fill(url: str, rows: int) -> list[str]:
    """Create the table at `url` with this many tokens that are valid for a day; return them."""
    now = _now()
    tokens = [_made() for _ in range(rows)]
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(_Base.metadata.create_all)
        made = {"created_at": now, "expires_at": now + timedelta(days=1)}
        await connection.execute(insert(Token), [{"token": token, **made} for token in tokens])
    await engine.dispose()
    return tokens


def _made() -> str:
    return _serializer.dumps(secrets.token_hex(16))


def _now() -> datetime:
    # SQLite keeps no time zone.
    return datetime.now(UTC).replace(tzinfo=None)

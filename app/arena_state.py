"""An open arena: its database, its writer and the key that signs its tokens."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from app.arena_config import ArenaConfig
from app.database import schema
from app.database.engine import open_engine
from app.database.writer import Writer
from app.voting.outcome_tally import OutcomeTally
from app.voting.pair_table import PairTables
from app.voting.tokens import TokenSigner


@dataclass(frozen=True)
class Arena:
    """What routes, pages and commands work with."""

    config: ArenaConfig
    engine: Engine
    writer: Writer
    signer: TokenSigner
    rng: np.random.Generator
    """Used by the writer's thread alone."""
    tally: OutcomeTally
    """The same."""
    pairs: PairTables
    """The same."""
    agreed: set[tuple[str, str]] = field(default_factory=set)
    """Raters' ids and versions of the study information that they agreed to, as far as they were asked; the same."""

    @functools.cached_property
    def _readers(self) -> Engine:
        if self.engine.dialect.name != "postgresql":
            return self.engine  # a transaction of SQLite is a snapshot by itself
        return self.engine.execution_options(isolation_level="REPEATABLE READ")

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that only reads, at one moment: what is written meanwhile it does not see."""
        with Session(self._readers) as session:
            yield session


@contextlib.contextmanager
def open_arena(config: ArenaConfig, *, create: bool = False) -> Iterator[Arena]:
    """Open an arena and close it again: what waits to be written is written.

    Args:
        config: Where it is.
        create: Make or migrate the tables first; else their version must fit.

    Raises:
        DataError: The tables are missing or of another version.
    """
    if create:
        config.data.mkdir(parents=True, exist_ok=True)
    engine = open_engine(config.url)
    if create:
        schema.upgrade(engine)
    schema.check_version(engine)
    writer = Writer(engine)
    try:
        signer = TokenSigner.from_file(config.data / "token.key")
        yield Arena(config, engine, writer, signer, np.random.default_rng(), OutcomeTally(), PairTables())
    finally:
        writer.close()
        engine.dispose()

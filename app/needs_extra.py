"""The arena's packages are an extra: without them the program says which and how to get them."""

import contextlib
from collections.abc import Iterator

from rlhf_video.errors import ConfigError

EXTRA = ("gradio", "fastapi", "uvicorn", "sqlalchemy", "alembic", "pydantic", "httpx", "starlette")


@contextlib.contextmanager
def needs_extra() -> Iterator[None]:
    """Turn the missing import of one of the arena's packages into an error that says what to install.

    Raises:
        ConfigError: One of `EXTRA` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] not in EXTRA:
            raise
        raise ConfigError(f"The arena needs {error.name}: pip install -c constraints.txt -e '.[arena]'") from error

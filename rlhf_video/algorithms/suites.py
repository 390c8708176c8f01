"""The prompts of a run: train, validation and test, none of them in two roles."""

from dataclasses import dataclass

from rlhf_video.data import PromptSuite
from rlhf_video.errors import ConfigError, DataError


@dataclass(frozen=True)
class Suites:
    """The three prompt suites."""

    train: PromptSuite
    validation: PromptSuite
    test: PromptSuite | None

    @property
    def all(self) -> tuple[PromptSuite, ...]:
        """Those that there are."""
        return tuple(suite for suite in (self.train, self.validation, self.test) if suite is not None)

    def record(self) -> dict[str, dict[str, object]]:
        """Return role -> name, hash and size, for a run's card."""
        return {
            role: {"name": suite.name, "sha256": suite.sha256, "count": len(suite)}
            for role, suite in (("train", self.train), ("validation", self.validation), ("test", self.test))
            if suite is not None
        }

    def check_disjoint(self) -> None:
        """Refuse a prompt that stands in two suites.

        Raises:
            DataError: Names one of the shared prompts.
        """
        for name, suite in (("validation", self.validation), ("test", self.test)):
            if suite is not None and (shared := set(suite.prompts) & set(self.train.prompts)):
                raise DataError(
                    f"prompts.{name} shares {len(shared)} prompts with prompts.train, for example '{min(shared)}': "
                    "remove them from one file, a score on trained prompts proves nothing."
                )
        if self.test is not None and (shared := set(self.test.prompts) & set(self.validation.prompts)):
            raise DataError(
                f"prompts.test shares {len(shared)} prompts with prompts.validation, for example '{min(shared)}': "
                "remove them from one file, the strength is chosen on validation prompts, so a test on them is not "
                "unseen."
            )


def first_prompts(suite: PromptSuite, count: int | None, field: str) -> PromptSuite:
    """Return a suite's first prompts; all where count is None.

    Args:
        suite: A whole file.
        count: How many.
        field: Dotted field that says so, for the message.

    Raises:
        ConfigError: There are fewer.
    """
    if count is None:
        return suite
    if not 1 <= count <= len(suite):
        raise ConfigError(f"{field}={count} does not fit: the prompt file '{suite.name}' holds {len(suite)} prompts.")
    return PromptSuite(suite.name, suite.version, suite.prompts[:count], suite.sha256)

"""What browsers send, checked field by field; a field that is not known is an error."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.voting.votes import Ballot

Side = Literal["left", "right"]
Answer = Literal["left", "same", "right"]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Milliseconds = Annotated[float, Field(ge=0, le=86_400_000)]
Count = Annotated[int, Field(ge=0, le=100_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ConsentBody(_Body):
    """Somebody agrees to take part."""

    version: Annotated[str, Field(min_length=1, max_length=32)]
    panel: dict[str, Annotated[str, Field(max_length=64)]] = {}
    """Ids of a panel as its address had them: PROLIFIC_PID, STUDY_ID, SESSION_ID."""


class AssignmentBody(_Body):
    """Ask for the next pair."""

    study: Annotated[str, Field(max_length=64)]


class MomentBody(_Body):
    """A bad moment of one clip."""

    side: Side
    frame: Count
    tag: Annotated[str, Field(max_length=32)]


class VoteBody(_Body):
    """A vote, or taking one back."""

    vote_id: Annotated[str, Field(pattern=r"^[0-9a-f-]{32,36}$")]
    assignment: Id
    token: Annotated[str, Field(max_length=256)]
    revision: Annotated[int, Field(ge=0, le=1000)] = 0
    answers: dict[Annotated[str, Field(max_length=32)], Answer] = {}
    both_unacceptable: bool = False
    withdrawn: bool = False
    watched_ms: dict[Side, Milliseconds] = {}
    decision_ms: Milliseconds = 0
    plays: Count = 0
    steps: Count = 0
    moments: Annotated[list[MomentBody], Field(max_length=64)] = []
    comment: Annotated[str, Field(max_length=2000)] | None = None
    client_time: Annotated[str, Field(max_length=40)] | None = None
    app_version: Annotated[str, Field(max_length=32)] | None = None

    def ballot(self) -> Ballot:
        """Return what voting/votes.py takes."""
        return Ballot(
            vote_id=self.vote_id,
            assignment_id=self.assignment,
            revision=self.revision,
            answers=dict(self.answers),
            both_unacceptable=self.both_unacceptable,
            withdrawn=self.withdrawn,
            watched_ms={str(side): ms for side, ms in self.watched_ms.items()},
            moments=tuple(moment.model_dump() for moment in self.moments),
            comment=self.comment,
            telemetry=self.model_dump(include={"decision_ms", "plays", "steps", "client_time", "app_version"}),
        )


class RefusalBody(_Body):
    """Why a pair is not answered."""

    token: Annotated[str, Field(max_length=256)]
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    note: Annotated[str, Field(max_length=2000)] | None = None

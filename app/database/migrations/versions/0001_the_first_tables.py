"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "audit_entry",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(length=40), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("previous_sha256", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_entry"),
    )
    op.create_table(
        "rater",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("pseudonym", sa.String(length=64), nullable=False),
        sa.Column("external_sha256", sa.String(length=64), nullable=True),
        sa.Column("consent_version", sa.String(length=32), nullable=False),
        sa.Column("consented_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("is_test", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rater"),
        sa.UniqueConstraint("pseudonym", name="uq_rater_pseudonym"),
    )
    op.create_index("ix_rater_external_sha256", "rater", ["external_sha256"], unique=False)
    op.create_index("ix_rater_is_test", "rater", ["is_test"], unique=False)
    op.create_table(
        "study",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("slug", name="uq_study_slug"),
    )
    op.create_table(
        "export",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_export_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_export"),
    )
    op.create_index("ix_export_study_id", "export", ["study_id"], unique=False)
    op.create_table(
        "prompt",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_sha256", sa.String(length=64), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_prompt_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_prompt"),
        sa.UniqueConstraint("study_id", "text_sha256", name="uq_prompt_study_id_text_sha256"),
    )
    op.create_table(
        "rater_session",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("rater_id", sa.String(length=32), nullable=False),
        sa.Column("cookie_sha256", sa.String(length=64), nullable=False),
        sa.Column("network_sha256", sa.String(length=64), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["rater_id"], ["rater.id"], name="fk_rater_session_rater_id"),
        sa.PrimaryKeyConstraint("id", name="pk_rater_session"),
        sa.UniqueConstraint("cookie_sha256", name="uq_rater_session_cookie_sha256"),
    )
    op.create_index("ix_rater_session_network_sha256", "rater_session", ["network_sha256"], unique=False)
    op.create_index("ix_rater_session_rater_id", "rater_session", ["rater_id"], unique=False)
    op.create_table(
        "snapshot",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("last_audit_number", sa.Integer(), nullable=False),
        sa.Column("last_audit_sha256", sa.String(length=64), nullable=False),
        sa.Column("code_version", sa.String(length=64), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_snapshot_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_snapshot"),
    )
    op.create_index("ix_snapshot_study_id", "snapshot", ["study_id"], unique=False)
    op.create_table(
        "system",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("parent_id", sa.String(length=32), nullable=True),
        sa.Column("export_id", sa.String(length=32), nullable=True),
        sa.Column("origin", sa.JSON(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["export_id"], ["export.id"], name="fk_system_export_id"),
        sa.ForeignKeyConstraint(["parent_id"], ["system.id"], name="fk_system_parent_id"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_system_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_system"),
        sa.UniqueConstraint("study_id", "name", name="uq_system_study_id_name"),
    )
    op.create_index("ix_system_study_id", "system", ["study_id"], unique=False)
    op.create_table(
        "video",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("system_id", sa.String(length=32), nullable=True),
        sa.Column("prompt_id", sa.String(length=32), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("source_path", sa.Text(), nullable=False),
        sa.Column("source_sha256", sa.String(length=64), nullable=False),
        sa.Column("play_files", sa.JSON(), nullable=False),
        sa.Column("fps", sa.Double(), nullable=False),
        sa.Column("num_frames", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("features", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], name="fk_video_prompt_id"),
        sa.ForeignKeyConstraint(["system_id"], ["system.id"], name="fk_video_system_id"),
        sa.PrimaryKeyConstraint("id", name="pk_video"),
        sa.UniqueConstraint("system_id", "prompt_id", "sample", name="uq_video_system_id_prompt_id_sample"),
    )
    op.create_index("ix_video_prompt_id", "video", ["prompt_id"], unique=False)
    op.create_index("ix_video_source_sha256", "video", ["source_sha256"], unique=False)
    op.create_index("ix_video_system_id", "video", ["system_id"], unique=False)
    op.create_table(
        "pair",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("prompt_id", sa.String(length=32), nullable=False),
        sa.Column("a_id", sa.String(length=32), nullable=False),
        sa.Column("b_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("gold", sa.String(length=16), nullable=True),
        sa.Column("expected", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["a_id"], ["video.id"], name="fk_pair_a_id"),
        sa.ForeignKeyConstraint(["b_id"], ["video.id"], name="fk_pair_b_id"),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], name="fk_pair_prompt_id"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_pair_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_pair"),
        sa.UniqueConstraint("prompt_id", "a_id", "b_id", "kind", name="uq_pair_prompt_id_a_id_b_id_kind"),
    )
    op.create_index("ix_pair_prompt_id", "pair", ["prompt_id"], unique=False)
    op.create_index("ix_pair_study_id_kind", "pair", ["study_id", "kind"], unique=False)
    op.create_table(
        "reward_score",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("video_id", sa.String(length=32), nullable=False),
        sa.Column("reward", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("dimension", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["video_id"], ["video.id"], name="fk_reward_score_video_id"),
        sa.PrimaryKeyConstraint("id", name="pk_reward_score"),
        sa.UniqueConstraint(
            "video_id", "reward", "version", "dimension", name="uq_reward_score_video_id_reward_version_dimension"
        ),
    )
    op.create_table(
        "assignment",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("study_id", sa.String(length=32), nullable=False),
        sa.Column("pair_id", sa.String(length=32), nullable=False),
        sa.Column("rater_id", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.String(length=32), nullable=True),
        sa.Column("a_is_left", sa.Boolean(), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("num_choices", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(length=32), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.ForeignKeyConstraint(["pair_id"], ["pair.id"], name="fk_assignment_pair_id"),
        sa.ForeignKeyConstraint(["rater_id"], ["rater.id"], name="fk_assignment_rater_id"),
        sa.ForeignKeyConstraint(["repeats"], ["assignment.id"], name="fk_assignment_repeats"),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name="fk_assignment_study_id"),
        sa.PrimaryKeyConstraint("id", name="pk_assignment"),
        sa.UniqueConstraint("pair_id", "rater_id", "attempt", name="uq_assignment_pair_id_rater_id_attempt"),
    )
    op.create_index("ix_assignment_pair_id", "assignment", ["pair_id"], unique=False)
    op.create_index("ix_assignment_rater_id", "assignment", ["rater_id"], unique=False)
    op.create_index(
        "ix_assignment_places", "assignment", ["study_id", "state", "policy", "pair_id", "rater_id"], unique=False
    )
    op.create_table(
        "refusal",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("assignment_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignment.id"], name="fk_refusal_assignment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_refusal"),
    )
    op.create_index("ix_refusal_assignment_id", "refusal", ["assignment_id"], unique=False)
    op.create_table(
        "vote",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("assignment_id", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.Column("answers", sa.JSON(), nullable=False),
        sa.Column("both_bad", sa.Boolean(), nullable=False),
        sa.Column("moments", sa.JSON(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("telemetry", sa.JSON(), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("is_late", sa.Boolean(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignment.id"], name="fk_vote_assignment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_vote"),
        sa.UniqueConstraint("assignment_id", "revision", name="uq_vote_assignment_id_revision"),
    )
    op.create_table(
        "exclusion",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("vote_id", sa.String(length=32), nullable=True),
        sa.Column("rater_id", sa.String(length=32), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lifted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lifted_by", sa.String(length=64), nullable=True),
        sa.CheckConstraint("(vote_id IS NULL) <> (rater_id IS NULL)", name="ck_exclusion_one_target"),
        sa.ForeignKeyConstraint(["rater_id"], ["rater.id"], name="fk_exclusion_rater_id"),
        sa.ForeignKeyConstraint(["vote_id"], ["vote.id"], name="fk_exclusion_vote_id"),
        sa.PrimaryKeyConstraint("id", name="pk_exclusion"),
    )
    op.create_index("ix_exclusion_rater_id", "exclusion", ["rater_id"], unique=False)
    op.create_index("ix_exclusion_vote_id", "exclusion", ["vote_id"], unique=False)


def downgrade() -> None:
    """Go back."""
    op.drop_table("exclusion")
    op.drop_table("vote")
    op.drop_table("refusal")
    op.drop_table("assignment")
    op.drop_table("reward_score")
    op.drop_table("pair")
    op.drop_table("video")
    op.drop_table("system")
    op.drop_table("snapshot")
    op.drop_table("rater_session")
    op.drop_table("prompt")
    op.drop_table("export")
    op.drop_table("study")
    op.drop_table("rater")
    op.drop_table("audit_entry")

"""Rendered clips to fine-tune on: what the manifest says is what the verifier reads, the same for the same seed."""

from pathlib import Path

from rlhf_video.data import read_clip_list
from rlhf_video.sprites.clips import write_clips
from rlhf_video.sprites.judge import SpriteJudge


def test_clips_show_their_prompts_and_splits_share_none(tmp_path: Path) -> None:
    judge = SpriteJudge()
    prompts: dict[str, set[str]] = {}
    for split in ("train", "validation"):
        clips = read_clip_list(write_clips(tmp_path / split, split, 4), field="clips")
        assert len(clips) == 4
        prompts[split] = {clip.prompt for clip in clips}
        for clip in clips:
            video = clip.read((21, 3, 64, 64), field="clips")
            assert float(judge(video[None], [clip.prompt], fps=8).values["all"]) == 1.0, clip.prompt
    assert not prompts["train"] & prompts["validation"]


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_clips(tmp_path / name, "train", 2, seed=3)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()

"""From votes to a better model and back: people judge clips, DPO learns from their votes, people see that it did.

The raters are simulated: the verifier of the sprite world looks at the clip that the arena plays, in which it finds
more or fewer of the attributes that the prompt asks for, and errs now and then. Everything else is what a real study
does: clips are imported, votes come through the raters' HTTP API, the export goes to train_dpo.py as it is, and the
adapter's clips enter as a child of the base. Judged are validation prompts, which nothing was trained on.
"""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("fastapi", reason="the arena needs its extra: pip install 'rlhf-video[arena]'")
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.arena_config import ArenaConfig
from app.arena_state import Arena, open_arena
from app.database.tables import System
from app.lineage.export import ExportConfig, export_votes
from app.lineage.lineage import LineageNode, lineage_of
from app.lineage.systems import register_trained
from app.studies.importing import import_folder
from app.studies.media import MediaPolicy
from app.studies.study import StudyPolicy, create_study, find_study
from app.web.server import create_app
from rewards.registry import build
from rlhf_video.backbones import load_backbone
from rlhf_video.data import read_video, sha256_file, write_video
from rlhf_video.data.prompts import load_prompts
from rlhf_video.preferences import ClipRecord, PreferenceStore
from rlhf_video.preferences.pairing import VotesConfig

STUDY = "loop"
PAIRS = Path("assets/sprite-pairs")
VALIDATION = Path("assets/prompts/sprite-validation.txt")
SLIPS = 0.05
"""Share of votes in which a rater presses the wrong button."""


class SimulatedRater:
    """Somebody who watches both clips and prefers the one that shows more of what the text asks for."""

    def __init__(self, app: FastAPI, judge: Any, seen: dict[str, float], seed: int) -> None:
        self._browser = TestClient(app, headers={"origin": "http://testserver"})
        self._judge, self._seen, self._rng = judge, seen, np.random.default_rng(seed)
        assert self._browser.post("/api/v1/consent", json={"version": "1"}).status_code == 200

    def vote(self, folder: Path) -> bool:
        """Judge the next pair; return whether there was one."""
        reply = self._browser.post("/api/v1/assignments", json={"study": STUDY})
        if reply.status_code == 204:
            return False
        pair = reply.json()
        left, right = (self._opinion(pair, side, folder) for side in ("left", "right"))
        answer = "same" if left == right else "left" if left > right else "right"
        if self._rng.random() < SLIPS:
            answer = str(self._rng.choice(["left", "right"]))
        sent = {
            "vote_id": uuid.uuid4().hex,
            "assignment": pair["assignment"],
            "token": pair["token"],
            "revision": 0,
            "answers": {"overall": answer},
            "watched_ms": {"left": 5000, "right": 5000},
        }
        assert self._browser.post("/api/v1/votes", json=sent).status_code == 201
        return True

    def _opinion(self, pair: dict[str, Any], side: str, folder: Path) -> float:
        """Return how many attributes are right in the clip that the arena plays on a side."""
        content = self._browser.get(pair[side]["sources"][0]["url"]).content
        key = f"{hash(content)} {pair['prompt']}"
        if key not in self._seen:
            file = folder / "watched.mp4"
            file.write_bytes(content)
            video, fps = read_video(file)
            scores = self._judge(video[None], [pair["prompt"]], fps=fps).values
            self._seen[key] = sum(float(values[0]) for name, values in scores.items() if name != "all")
        return self._seen[key]


def collect_votes(arena: Arena, folder: Path, *, raters: int, seed: int) -> int:
    """Let raters vote in turn until nothing is left for any of them; return how often they did."""
    judge, seen = build("rlhf_video.sprites.judge:SpriteJudge"), dict[str, float]()
    app = create_app(arena)
    busy = [SimulatedRater(app, judge, seen, seed + number) for number in range(raters)]
    count = 0
    while busy:
        busy = [rater for rater in busy if rater.vote(folder)]
        count += len(busy)
    return count


def decode_shipped_clips(folder: Path) -> dict[float, Path]:
    """Write the clips of the shipped pairs as videos, a folder for each guidance, as generate.py leaves one."""
    clips: dict[str, tuple[str, ClipRecord]] = {}
    for part in ("train", "validation"):
        for pair in PreferenceStore(PAIRS / f"{part}.jsonl").read():
            clips |= {clip.path: (pair.prompt, clip) for clip in pair.clips}
    backbone = load_backbone("assets/sprite-wan")
    names = sorted(clips)
    records: dict[float, list[dict[str, Any]]] = {1.0: [], 5.0: []}
    for start in range(0, len(names), 16):
        batch = names[start : start + 16]
        latents = torch.stack([load_file(PAIRS / name)["latents"].float() for name in batch])
        with torch.no_grad():
            videos = backbone.decode(latents)
        for name, video in zip(batch, videos, strict=True):
            prompt, clip = clips[name]
            guidance = float(str(clip.sampler["guidance"]))
            file = folder / f"guidance-{guidance:g}" / f"{Path(name).stem}.mp4"
            write_video(file, video, fps=8)
            records[guidance].append(
                {"file": file.name, "prompt": prompt, "seed": clip.seed, "sha256": sha256_file(file)}
            )
    for guidance, entries in records.items():
        facts = {"model": "assets/sprite-wan", "adapter": None, "adapter_sha256": None}
        content = {**facts, "sampler": {"guidance": guidance}, "clips": entries}
        (folder / f"guidance-{guidance:g}" / "manifest.json").write_text(json.dumps(content))
    return {guidance: folder / f"guidance-{guidance:g}" for guidance in records}


def run_script(name: str, *arguments: str) -> None:
    """Run an entry script as a user does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([sys.executable, f"rlhf_video/{name}", *arguments], check=True, env=environment)


def make_study(arena: Arena) -> None:
    """Ask one question; one vote a pair at first, and play clips at their own size: the verifier counts pixels."""
    policy = StudyPolicy(
        questions=("overall",),
        overlap=1,
        min_watch_s=0.0,
        practice=0,
        gold_rate=0.0,
        repeat_rate=0.0,
        media=MediaPolicy(height=64, width=64, webm=False),
    )
    arena.writer.run(lambda session: create_study(session, slug=STUDY, name="Loop", policy=policy))


def ask_about_the_child_alone(arena: Arena, *, overlap: int) -> None:
    """Retire the guided clips, and ask for more votes on each pair of what is left."""

    def change(session: Session) -> None:
        session.execute(update(System).where(System.name == "base, guided").values(is_active=False))
        study = find_study(session, STUDY)
        study.policy = {**study.policy, "overlap": overlap}

    arena.writer.run(change)


def child_of(arena: Arena, name: str) -> LineageNode:
    """Return a system's place in the tree."""
    with arena.reading() as session:
        nodes = lineage_of(session, find_study(session, STUDY), arena.config.data)
    return next(node for node in nodes if node.name == name)


@pytest.mark.journey
def test_votes_make_a_model_that_the_same_raters_prefer(tmp_path: Path) -> None:
    folders = decode_shipped_clips(tmp_path / "round-1")
    with open_arena(ArenaConfig(data=tmp_path / "arena"), create=True) as arena:
        make_study(arena)
        import_folder(arena, STUDY, "base", folders[1.0])
        first = import_folder(arena, STUDY, "base, guided", folders[5.0])
        assert first.new_pairs >= 350
        assert collect_votes(arena, tmp_path, raters=12, seed=0) == first.new_pairs

        # One vote a pair: P(p > 1/2) is 0.75 after it.
        rule = VotesConfig(threshold=0.7)
        written = export_votes(
            arena, STUDY, ExportConfig(votes=rule), evaluation={"validation": load_prompts(VALIDATION)}
        )
        assert written.num_pairs["train"] >= 200
        run = tmp_path / "run"
        run_script(
            "train_dpo.py",
            f"output_dir={run}",
            f"pairs.train={written.folder / 'train.jsonl'}",
            f"pairs.validation={written.folder / 'validation.jsonl'}",
            "num_steps=150",
            "validation.every=150",
            "checkpoint.every=150",
            "validation.num_prompts=4",
            "validation.clips_per_prompt=1",
            "prompts.test=null",
        )

        sampling = (f"prompts={VALIDATION}", "clips_per_prompt=2", "num_steps=10", "guidance=1.0", "batch_size=16")
        run_script("generate.py", f"output_dir={tmp_path / 'base'}", *sampling)
        run_script("generate.py", f"output_dir={tmp_path / 'dpo'}", f"adapter={run / 'adapter'}", *sampling)
        import_folder(arena, STUDY, "base", tmp_path / "base", opponents=())
        child = register_trained(arena, STUDY, "dpo", run=run, clips=tmp_path / "dpo", parent="base")
        assert (child.new_pairs, child.trained_prompts) == (96, 0)
        ask_about_the_child_alone(arena, overlap=3)
        assert collect_votes(arena, tmp_path, raters=24, seed=100) == 3 * 96

        node = child_of(arena, "dpo")
        fight = node.against_parent
        assert node.parent == "base"
        assert fight is not None and fight.rating is not None
        assert fight.rating.is_above_zero, f"{fight.wins}:{fight.ties}:{fight.losses}, rating {fight.rating}"
        assert fight.win_rate.low > 0.5

"""The conformance test that every reward passes, and a closed-form reward; both also for rewards of your own.

Example:
    class TestMyReward(RewardContract):
        reward = "my_package.my_module:MyReward"
        options = {"model": "path/to/folder"}
"""

import dataclasses
import pickle
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import torch
from torch import Tensor

from rewards import registry
from rewards.base import FramePolicy, Reward, RewardOutput, RewardSpec, masked_output
from rewards.catalogue import CATALOGUE
from rewards.errors import RewardError
from rewards.inputs import check_clips, full_precision
from rewards.ledger import LEDGER


class BrightnessReward:
    """Mean of all pixels and channels, in [0, 1]: its gradient is 1 / (frames * 3 * height * width) everywhere."""

    def __init__(self) -> None:
        """Declare the facts; there is nothing to load."""
        self.spec = RewardSpec(
            name="brightness",
            version="1",
            dimensions=("brightness",),
            range=(0.0, 1.0),
            higher_is_better=True,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=None,
            licence="Apache-2.0",
            paper=None,
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form.
        """
        clips = check_clips(video, prompts, fps=fps)
        with full_precision(clips.video):
            brightness = clips.video.mean(dim=(1, 2, 3, 4))
        return masked_output({"brightness": brightness}, clips.valid, clips.reasons)


class RewardContract:
    """What every reward promises, as pytest tests. Subclass it, name the reward, and pytest collects the rest."""

    reward: ClassVar[str]
    """Registry name or "package.module:Class"."""
    options: ClassVar[Mapping[str, object]] = {}
    """Options of the reward."""
    shape: ClassVar[tuple[int, int, int, int, int]] = (3, 5, 3, 12, 16)
    """Clips of the test: batch (>= 2), frames, 3, height, width."""
    prompts: ClassVar[tuple[str, ...]] = ("a red circle moving left", "a blue square", "a green star moving up")
    """At least `batch` prompts, which a prompt-reading reward tells apart."""
    tolerance: ClassVar[float] = 1e-5
    """Absolute and relative, for scores that must agree."""
    bf16_tolerance: ClassVar[float] = 0.02
    """Relative change of a score when the pixels are rounded to bf16 (3 significant digits)."""
    _built: ClassVar[dict[type, Reward]] = {}

    def build(self) -> Reward:
        """Return the reward, built once per test class."""
        if type(self) not in self._built:
            self._built[type(self)] = registry.build(self.reward, **self.options)
        return self._built[type(self)]

    def clips(self, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
        """Return clips away from the edges of [0, 1], so that finite differences stay inside."""
        generator = torch.Generator().manual_seed(seed)
        return (0.1 + 0.8 * torch.rand(self.shape, generator=generator, dtype=torch.float64)).to(dtype)

    def score(self, video: Tensor, prompts: Sequence[str] | None = None) -> RewardOutput:
        """Score clips with the test's prompts."""
        return self.build()(video, self.prompts[: len(video)] if prompts is None else prompts, fps=8.0)

    def _differentiable(self) -> list[str]:
        spec = self.build().spec
        return [key for key in spec.dimensions if spec.is_differentiable and key not in spec.without_gradient]

    def _close(self, left: RewardOutput, right: RewardOutput) -> None:
        for key in self.build().spec.dimensions:
            torch.testing.assert_close(left.values[key], right.values[key], rtol=self.tolerance, atol=self.tolerance)

    def _refuses(self, video: Tensor, prompts: Sequence[str], fps: float = 8.0) -> str:
        try:
            self.build()(video, prompts, fps=fps)
        except RewardError as error:
            return str(error)
        raise AssertionError(f"{self.reward} scored video of shape {tuple(video.shape)}, dtype {video.dtype}.")

    def test_scores_have_declared_dimensions_shape_dtype_and_range(self) -> None:
        """Each dimension is (batch,), float32, finite and inside the declared range."""
        spec, output = self.build().spec, self.score(self.clips())
        assert tuple(output.values) == spec.dimensions
        assert output.valid.dtype == torch.bool
        assert output.valid.tolist() == [True] * self.shape[0]
        assert output.reasons == (None,) * self.shape[0]
        for value in output.values.values():
            assert value.shape == (self.shape[0],)
            assert value.dtype == torch.float32
            assert bool(((value >= spec.range[0] - 1e-4) & (value <= spec.range[1] + 1e-4)).all())

    def test_same_input_gives_same_bits(self) -> None:
        """Two calls agree exactly, and the clip is left as it was."""
        video = self.clips()
        first, untouched = self.score(video), video.clone()
        second = self.score(video)
        assert torch.equal(video, untouched)
        for key, value in first.values.items():
            assert torch.equal(value, second.values[key])

    def test_a_batch_scores_as_its_clips_alone(self) -> None:
        """No clip depends on its batch mates."""
        video = self.clips()
        batched = self.score(video)
        for i, prompt in enumerate(self.prompts[: len(video)]):
            alone = self.score(video[i : i + 1], [prompt])
            for key, value in batched.values.items():
                torch.testing.assert_close(
                    value[i : i + 1], alone.values[key], rtol=self.tolerance, atol=self.tolerance
                )

    def test_prompt_matters_as_declared(self) -> None:
        """The prompt changes the score if and only if the spec says so."""
        video = self.clips()
        same_clip = video[:1].expand(2, *video.shape[1:])
        scores = self.score(same_clip, self.prompts[:2]).values
        differs = any(not torch.equal(value[0], value[1]) for value in scores.values())
        assert differs == self.build().spec.uses_prompt

    def test_no_grad_and_grad_score_alike(self) -> None:
        """Recording a graph changes no number; without one nothing is recorded."""
        video = self.clips()
        with torch.no_grad():
            plain = self.score(video)
        assert not any(value.requires_grad for value in plain.values.values())
        self._close(plain, self.score(video.clone().requires_grad_()))

    def test_gradient_reaches_pixels_as_declared(self) -> None:
        """A differentiable dimension gives each clip a finite gradient, another one gives none."""
        video = self.clips().requires_grad_()
        for key, value in self.score(video).values.items():
            is_differentiable = key in self._differentiable()
            assert value.requires_grad == is_differentiable
            if is_differentiable:
                (gradient,) = torch.autograd.grad(value.sum(), video, retain_graph=True)
                assert bool(torch.isfinite(gradient).all())
                assert bool((gradient.flatten(1).abs().sum(dim=1) > 0).all())

    def test_gradient_equals_finite_differences(self) -> None:
        """In float64 the gradient equals central differences along random directions."""
        video = self.clips(dtype=torch.float64)[:2].requires_grad_()
        for key in self._differentiable():

            def score(pixels: Tensor, key: str = key) -> Tensor:
                return self.score(pixels).values[key]

            assert torch.autograd.gradcheck(score, (video,), eps=1e-6, atol=1e-5, rtol=1e-3, fast_mode=True)

    def test_gradient_equals_finite_differences_at_eight_pixels(self) -> None:
        """In float64 the gradient at eight single pixels equals central differences, as people check by hand."""
        video = self.clips(dtype=torch.float64)[:1]
        leaf = video.clone().requires_grad_()
        looked_at = self.build().spec.frames.select(self.shape[1], fps=8.0)
        for key in self._differentiable():
            (gradient,) = torch.autograd.grad(self.score(leaf).values[key].sum(), leaf)
            seen = gradient[0, list(looked_at)].abs().amax() + 1e-12
            for pixel in self._eight_pixels(looked_at):
                step = torch.zeros_like(video)
                step[pixel] = 1e-5
                with torch.no_grad():
                    up, down = (self.score(video + sign * step).values[key] for sign in (1, -1))
                assert abs(float((up - down) / 2e-5) - float(gradient[pixel])) <= 1e-3 * float(seen) + 1e-7

    def _eight_pixels(self, frames: Sequence[int]) -> list[tuple[int, ...]]:
        generator = torch.Generator().manual_seed(1)

        def draw(count: int) -> int:
            return int(torch.randint(count, (), generator=generator))

        return [(0, frames[draw(len(frames))], *(draw(size) for size in self.shape[2:])) for _ in range(8)]

    def test_chosen_frames_alone_decide(self) -> None:
        """A clip of only the frames that the policy chooses scores alike; a trainer decodes no others."""
        frames = self.build().spec.frames
        if frames.kind == "all":
            return
        video, chosen = self.clips(), list(dict.fromkeys(frames.select(self.shape[1], fps=8.0)))
        # A policy by rate goes by the clip's duration; the others do not look at fps.
        fps = 8.0 * len(chosen) / self.shape[1] if frames.kind == "rate" else 8.0
        self._close(self.score(video), self.build()(video[:, chosen], self.prompts[: len(video)], fps=fps))
        others = [index for index in range(self.shape[1]) if index not in chosen]
        changed = video.clone()
        changed[:, others] = 1 - changed[:, others]
        self._close(self.score(video), self.score(changed))

    def test_odd_sizes_are_scored(self) -> None:
        """Heights and widths that nothing divides are no error."""
        batch, frames, channels, height, width = self.shape
        video = torch.rand(batch, frames, channels, height + 1, width + 3, generator=torch.Generator().manual_seed(2))
        output = self.score(video)
        assert bool(output.valid.all())
        assert all(bool(torch.isfinite(value).all()) for value in output.values.values())

    def test_empty_prompt_is_refused_where_it_matters(self) -> None:
        """A reward that reads the prompt refuses an empty one; another does not care."""
        video, prompts = self.clips(), ["", *self.prompts[1 : self.shape[0]]]
        if self.build().spec.uses_prompt:
            assert "empty" in self._refuses(video, prompts)
        else:
            assert bool(self.score(video, prompts).valid.all())

    def test_pickled_reward_scores_alike(self) -> None:
        """A reward travels to another process."""
        copy = pickle.loads(pickle.dumps(self.build()))  # our own bytes
        video = self.clips()
        self._close(self.score(video), copy(video, self.prompts[: self.shape[0]], fps=8.0))

    def test_threads_score_alike(self) -> None:
        """Four threads that share the reward get what one gets."""
        reward = registry.build(self.reward, **self.options) if ":" not in self.reward else self.build()
        video, prompts = self.clips(), self.prompts[: self.shape[0]]
        expected = self.score(video)
        with ThreadPoolExecutor(4) as pool:
            for output in pool.map(lambda _: reward(video, prompts, fps=8.0), range(4)):
                self._close(output, expected)

    def test_scores_after_inference_mode_still_carry_gradient(self) -> None:
        """A first call in inference mode leaves no cached tensor that autograd refuses."""
        reward = registry.build(self.reward, **self.options)
        video, prompts = self.clips(), self.prompts[: self.shape[0]]
        with torch.inference_mode():
            reward(video, prompts, fps=8.0)
        if reward.spec.is_differentiable:
            video.requires_grad_()
            total = torch.stack(list(reward(video, prompts, fps=8.0).values.values())).sum()
            (gradient,) = torch.autograd.grad(total, video)
            assert bool(torch.isfinite(gradient).all())

    def test_bf16_pixels_and_autocast_are_scored_in_float32(self) -> None:
        """Half-precision clips give float32 scores near the full ones; autocast changes nothing."""
        video = self.clips()
        full, half = self.score(video), self.score(video.bfloat16())
        for key, value in full.values.items():
            assert half.values[key].dtype == torch.float32
            torch.testing.assert_close(half.values[key], value, rtol=self.bf16_tolerance, atol=self.bf16_tolerance)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            self._close(self.score(video), full)

    def test_nan_clip_is_masked_and_its_neighbours_are_not(self) -> None:
        """One bad pixel makes one clip invalid with a reason, and poisons neither scores nor gradients."""
        clean = self.score(self.clips())
        video = self.clips()
        video[0, 0, 0, 0, 0] = float("nan")
        video.requires_grad_()
        output = self.score(video)
        assert output.valid.tolist() == [False] + [True] * (self.shape[0] - 1)
        assert output.reasons[0]
        assert output.reasons[1:] == (None,) * (self.shape[0] - 1)
        for key, value in output.values.items():
            assert bool(value[0].isnan())
            torch.testing.assert_close(value[1:], clean.values[key][1:], rtol=self.tolerance, atol=self.tolerance)
        if self.build().spec.is_differentiable:
            total = torch.stack([value[output.valid].sum() for value in output.values.values()]).sum()
            (gradient,) = torch.autograd.grad(total, video)
            assert bool(torch.isfinite(gradient).all())
            assert not bool(gradient[0].any())

    def test_wrong_input_is_refused_with_the_way_out(self) -> None:
        """Each wrong form of input is a RewardError that names what was given."""
        video, prompts = self.clips(), list(self.prompts[: self.shape[0]])
        for wrong, named in self._wrong_videos(video):
            assert named in self._refuses(wrong, prompts)
        assert "prompt" in self._refuses(video, prompts[:-1])
        assert "one string" in self._refuses(video, prompts[0])
        assert "fps" in self._refuses(video, prompts, fps=0.0)

    def _wrong_videos(self, video: Tensor) -> Iterator[tuple[Tensor, str]]:
        yield video[0], "shape"
        yield video[:, :, :1], "3 RGB channels"
        yield video.movedim(2, -1), "channels"
        yield (video * 255).to(torch.uint8), "uint8"
        yield video * 255, "divide"
        yield video * 2 - 1, "(video + 1) / 2"
        yield video[:, :0], "frame"

    def test_scores_agree_on_an_accelerator(self) -> None:
        """On a GPU, where there is one, the scores come back there and agree with the CPU's."""
        if not torch.cuda.is_available():
            return
        video = self.clips()
        expected = self.score(video)
        output = self.score(video.cuda())
        for key, value in output.values.items():
            assert value.is_cuda
            torch.testing.assert_close(value.cpu(), expected.values[key], rtol=1e-3, atol=1e-3)

    def test_catalogue_tells_the_truth(self) -> None:
        """What `rlhf-video rewards list` prints without weights is what the built reward says."""
        entry = CATALOGUE.get(self.reward)
        if entry is None:
            return
        assert entry.is_differentiable == self.build().spec.is_differentiable
        assert entry.licence and entry.frames and entry.parity
        assert all(name in LEDGER for name in entry.weights)

    def test_spec_is_a_frozen_record(self) -> None:
        """Nobody changes a reward's facts behind its back."""
        spec = self.build().spec
        assert isinstance(spec, RewardSpec)
        assert spec.name
        assert spec.version
        assert spec.licence
        try:
            spec.name = "other"  # type: ignore[misc]
        except dataclasses.FrozenInstanceError:
            return
        raise AssertionError("RewardSpec can be changed.")

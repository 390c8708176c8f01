from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from rlhf_video.errors import ConfigError
from rlhf_video.settings import changed_fields, config_hash, dump_yaml, load_config, to_plain


@dataclass(frozen=True, kw_only=True)
class Optim:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate={self.learning_rate} must be positive.")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    name: str
    weight: float = 1.0
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Config:
    backbone: str
    output_dir: Path = Path("runs/x")
    num_steps: int = 10
    is_on: bool = True
    estimator: Literal["draft_k", "draft_lv", "refl"] = "draft_k"
    optim: Optim = Optim(learning_rate=5e-4)
    rewards: tuple[RewardConfig, ...] = (RewardConfig(name="a"), RewardConfig(name="b", weight=2.0))
    anchor: Optim | None = None
    ema_decay: float | None = None
    steps: tuple[int, ...] | Literal["last"] = "last"


def load_text(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_config(Config, path, overrides)


def test_fields_left_out_keep_their_defaults(tmp_path: Path) -> None:
    config = load_text(tmp_path, "backbone: assets/sprite-wan\noptim:\n  betas: [0.5, 1]\n")
    assert config == Config(backbone="assets/sprite-wan", optim=Optim(learning_rate=5e-4, betas=(0.5, 1.0)))
    assert isinstance(config.optim.betas[1], float)


def test_a_config_cannot_be_changed_after_loading(tmp_path: Path) -> None:
    with pytest.raises(FrozenInstanceError):
        load_text(tmp_path, "backbone: x").num_steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", ".1e-3", "+1e-4"])
def test_scientific_notation_is_a_number(tmp_path: Path, text: str) -> None:
    assert load_text(tmp_path, f"backbone: x\noptim: {{learning_rate: {text}}}").optim.learning_rate == 1e-4


@pytest.mark.parametrize("text", ["no", "on", "yes", "2024-01-01", "12:30", "0x10", "1_000", "<<"])
def test_words_that_older_yaml_converts_stay_text(tmp_path: Path, text: str) -> None:
    assert load_text(tmp_path, f"backbone: {text}").backbone == text


def test_a_leading_zero_is_not_octal(tmp_path: Path) -> None:
    assert load_text(tmp_path, "backbone: x\nnum_steps: 010").num_steps == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_step: 3", r"Unknown key 'num_step'. Did you mean 'num_steps'\? Known here: backbone, output_dir"),
        ("optim: {learning_rat: 3}", r"Unknown key 'optim.learning_rat'. Did you mean 'optim.learning_rate'\?"),
        ("learning_rate: 3", r"Unknown key 'learning_rate'. Did you mean 'optim.learning_rate'\?"),
        ("rewards: [{name: a, wieght: 1}]", r"Unknown key 'rewards.0.wieght'. Did you mean 'rewards.0.weight'\?"),
        ("num_steps: many", r"'num_steps' expects integer, got text 'many'"),
        ("num_steps: 1e3", r"'num_steps' expects integer, got number 1000.0. Write 1000."),
        ("num_steps: true", r"'num_steps' expects integer, got true/false True"),
        ("is_on: 1", r"'is_on' expects true/false, got integer 1"),
        ("optim: {learning_rate: fast}", r"'optim.learning_rate' expects number, got text 'fast'"),
        ("optim: {betas: [0.9]}", r"'optim.betas' needs 2 values, got 1"),
        ("optim: 3", r"'optim' expects section, got integer 3"),
        ("optim: {learning_rate: -1}", r"In section 'optim': learning_rate=-1.0 must be positive"),
        ("rewards: a", r"'rewards' expects list of section, got text 'a'"),
        ("rewards: [{weight: 1}]", r"'rewards.0.name' is required"),
        (
            "estimator: draft_v",
            r"'estimator' must be one of draft_k, draft_lv, refl, got 'draft_v'. Did you mean 'draft_lv'\?",
        ),
        ("steps: first", r"'steps' expects list of integer or one of 'last', got text 'first'"),
        ("ema_decay: high", r"'ema_decay' expects number, got text 'high'"),
        ("output_dir: 3", r"'output_dir' expects path, got integer 3"),
        ("num_steps: 1\nnum_steps: 2", r"line 3: the key 'num_steps' is given twice \(first on line 2\)"),
        ("rewards: [{name: a, options: {x: 1, x: 2}}]", r"the key 'x' is given twice"),
        ("3: 4", r"the key 3 is not text"),
        ("optim: {", r"config.yaml is not valid YAML"),
        ("optim: !!python/object:os.system {}", r"is not valid YAML"),
    ],
)
def test_a_wrong_line_names_its_field_and_the_way_out(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_text(tmp_path, f"backbone: x\n{text}\n")


def test_text_that_looks_like_a_number_asks_for_quotes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'backbone' expects text, got integer 12. Put it in quotes"):
        load_text(tmp_path, "backbone: 12")


def test_a_required_field_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config.yaml: 'backbone' is required \(text\)"):
        load_text(tmp_path, "")


def test_a_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "sprite.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"no config file .*spirte.yaml. There are: .*sprite.yaml"):
        load_config(Config, tmp_path / "spirte.yaml")


def test_a_list_is_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must hold 'key: value' lines, got a list"):
        load_text(tmp_path, "- backbone")


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"backbone: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(Config, tmp_path / "c.yaml")


def test_overrides_reach_sections_lists_and_options(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        "backbone: x\n",
        "rewards.1.weight=1e-1",
        "rewards.0.options.model=assets/clip",
        "anchor.learning_rate=3",
        "optim.betas=[0.1, 0.2]",
        "steps=[1, 2]",
        "ema_decay=null",
        "backbone=a=b",
    )
    assert config.rewards[1] == RewardConfig(name="b", weight=0.1)
    assert config.rewards[0].options == {"model": "assets/clip"}
    assert config.anchor == Optim(learning_rate=3.0)
    assert config.optim == Optim(learning_rate=5e-4, betas=(0.1, 0.2))
    assert (config.steps, config.ema_decay, config.backbone) == ((1, 2), None, "a=b")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_steps", r"'num_steps' is not an override. Write key=value"),
        ("num_step=3", r"Unknown key 'num_step'. Did you mean 'num_steps'"),
        ("optim.rate=3", r"Unknown key 'optim.rate'"),
        ("rewards.2.weight=1", r"'rewards.2' does not exist: 'rewards' has 2 items \(indices 0 to 1\)"),
        ("rewards.first.weight=1", r"'rewards' is a list: write an index"),
        ("num_steps.x=1", r"'num_steps' is 10: it has no part named 'x'"),
        ("optim.betas.0=high", r"'optim.betas.0' expects number"),
        ("num_steps=[", r"override 'num_steps=\[' is not valid YAML"),
    ],
)
def test_a_wrong_override_names_its_field(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_text(tmp_path, "backbone: x", override)


def test_an_override_of_one_anchor_leaves_the_other_alone(tmp_path: Path) -> None:
    config = load_text(tmp_path, "backbone: x\noptim: &o {learning_rate: 1}\nanchor: *o\n", "anchor.learning_rate=2")
    assert (config.optim.learning_rate, config.anchor) == (1.0, Optim(learning_rate=2.0, betas=(0.9, 0.99)))


def test_the_dump_reads_back_to_the_same_config(tmp_path: Path) -> None:
    config = Config(
        backbone="no",
        output_dir=Path("runs/1"),
        optim=Optim(learning_rate=1e-30),
        rewards=(RewardConfig(name="1e5", options={"a": [1, None, "null", 1e-5], "b": {"c": True}}),),
        anchor=Optim(),
        steps=(3,),
    )
    assert load_text(tmp_path, dump_yaml(config)) == config


def test_the_hash_follows_values_not_layout(tmp_path: Path) -> None:
    first = load_text(tmp_path, "backbone: x\nnum_steps: 3\nis_on: true")
    second = load_text(tmp_path, "# reordered\nis_on: true\nbackbone: 'x'", "num_steps=3")
    assert config_hash(first) == config_hash(second) != config_hash(load_text(tmp_path, "backbone: x"))
    assert len(config_hash(first)) == 12


def test_changed_fields_are_named_with_their_sections() -> None:
    old, new = Config(backbone="x"), Config(backbone="y", optim=Optim(learning_rate=1.0), rewards=())
    assert changed_fields(to_plain(old), to_plain(new)) == ("backbone", "optim.learning_rate", "rewards")
    assert changed_fields(to_plain(old), to_plain(old)) == ()

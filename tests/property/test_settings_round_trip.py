from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.settings import config_hash, dump_yaml, load_config
from rlhf_video.settings.yaml_values import format_yaml, parse_yaml


@dataclass(frozen=True, kw_only=True)
class Inner:
    name: str
    rate: float = 1.0
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outer:
    text: str
    count: int
    number: float
    is_on: bool
    path: Path
    choice: Literal["a", "no", "1"]
    maybe: float | None
    pair: tuple[int, str]
    many: tuple[Inner, ...]
    section: Inner | None


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "no",
        "1e-4",
        "null",
        "~",
        "",
        "0x1",
        "1:30",
        "- a",
        "a: b",
        "#",
        "'",
        '"',
        "\n",
        " x ",
        "=",
        "<<",
        "!!str",
        "&a",
        "*a",
    ]
)
numbers = st.floats(allow_nan=False)
scalars = st.none() | st.booleans() | st.integers() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=10).map(Path)
inners = st.builds(Inner, name=texts, rate=numbers, options=st.dictionaries(texts, values, max_size=3))
outers = st.builds(
    Outer,
    text=texts,
    count=st.integers(),
    number=numbers,
    is_on=st.booleans(),
    path=paths,
    choice=st.sampled_from(["a", "no", "1"]),
    maybe=st.none() | numbers,
    pair=st.tuples(st.integers(), texts),
    many=st.lists(inners, max_size=3).map(tuple),
    section=st.none() | inners,
)


@given(config=outers)
def test_a_dumped_config_reads_back_equal(config: Outer, tmp_path_factory: object) -> None:
    path = tmp_path_factory.mktemp("config") / "config.yaml"  # type: ignore[attr-defined]
    path.write_text(dump_yaml(config), encoding="utf-8", newline="")
    read = load_config(Outer, path)
    assert read == config
    assert config_hash(read) == config_hash(config)


@given(value=values)
def test_plain_values_survive_yaml_with_their_types(value: object) -> None:
    read = parse_yaml(format_yaml({"value": value}), source="test")
    assert repr(read) == repr({"value": value})


@given(value=scalars)
def test_an_override_sets_any_scalar(value: object) -> None:
    config = load_config(Inner, None, ["name=x", "options.a=" + format_yaml([value]).removeprefix("- ")])
    assert repr(config.options) == repr({"a": value})

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_video.data import load_prompts

words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
prompt_sets = st.lists(
    st.lists(words, min_size=1, max_size=5).map(" ".join),
    min_size=1,
    max_size=8,
    unique_by=lambda text: text.casefold(),
)


@given(prompts=prompt_sets)
@settings(max_examples=30)
def test_text_and_json_lines_hold_the_same_suite(prompts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        text, lines = Path(folder) / "suite.txt", Path(folder) / "suite.jsonl"
        text.write_text("# a comment\n" + "\n".join(prompts) + "\n", encoding="utf-8")
        lines.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts), encoding="utf-8")
        assert load_prompts(text) == load_prompts(lines)
        assert load_prompts(text).prompts == tuple(prompts)

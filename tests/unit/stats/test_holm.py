import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.errors import DataError
from rlhf_video.stats import holm


def test_each_p_value_is_multiplied_by_the_number_of_those_not_smaller() -> None:
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_correction_keeps_the_order_and_lies_between_p_and_bonferroni(p_values: list[float]) -> None:
    p = np.array(p_values)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(p * len(p), 1.0)).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("p_values", [[1.1], [float("nan")], [[0.1]]])
def test_what_is_no_list_of_probabilities_is_refused(p_values: list[float]) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        holm(p_values)

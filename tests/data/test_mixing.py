"""How often each of several data sets is drawn from."""

import pytest

from gaitzoo import mix_probabilities


def test_shares_of_data_sets():
    shares = mix_probabilities(
        {"small": 1000, "large": 27000, "huge": 1_250_000}, discount={"huge": 10}
    )
    assert shares == pytest.approx({"small": 1 / 9, "large": 3 / 9, "huge": 5 / 9})
    assert mix_probabilities({"a": 1, "b": 9}, power=0) == {"a": 0.5, "b": 0.5}
    assert mix_probabilities({"a": 1, "b": 3}, power=1) == {"a": 0.25, "b": 0.75}
    for arguments in (({},), ({"a": 0},), ({"a": 1}, 2), ({"a": 1}, 1, {"b": 2})):
        with pytest.raises(ValueError, match="expected"):
            mix_probabilities(*arguments)

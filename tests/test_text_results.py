"""What the methods of a session give back."""

from __future__ import annotations

from runtime.text.results import classified


def test_labels_that_classes_share_lose_no_score() -> None:
    """ImageNet has two cranes: the best has the label, the other its number behind it."""
    found = classified([0.2, 0.1, 0.4, 0.3], ["crane", "ship", "boat", "crane"], None)
    assert (found.label, found.score) == ("boat", 0.4)
    assert found.scores == {"boat": 0.4, "crane": 0.3, "crane (0)": 0.2, "ship": 0.1}
    assert list(found.scores) == ["boat", "crane", "crane (0)", "ship"]


def test_the_best_of_a_shared_label_is_found_by_it() -> None:
    found = classified([0.1, 0.9], ["crane", "crane"], 1)
    assert found.scores == {found.label: found.score} == {"crane": 0.9}

"""The duel in Debian's Chromium, against a stand-in server: what a rater does, and what the server then has."""

import pytest

pytestmark = pytest.mark.slow

def test_probe(open_duel):
    duel = open_duel()
    duel.page.wait_for_timeout(1500)
    print(duel.frames(), duel.state("currentTime"), duel.problems)
    duel.shot("desktop-light")

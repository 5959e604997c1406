from __future__ import annotations

import pytest

from otelprogress.model.events import State
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.filters import facts_of
from tests.model.saying import T0, S, Saying


@pytest.mark.parametrize("ended", [False, True])
def test_filters_see_the_same_in_the_identity_as_in_the_whole_view(ended):
    tree = OperationTree()
    parent, child = Saying(1), Saying(2, parent=1)
    events = [
        parent.started(label="job-7", service="loader", attributes={"region": "north"}, tenant="acme"),
        child.started(1, label="part", service="loader", attributes={"size": 3}, tenant="acme"),
    ]
    if ended:
        events.append(child.ended(2, State.FAILED, tenant="acme"))
    for event in events:
        tree.apply(event, T0 + 3 * S)
    for run_id in tree.run_ids():
        ancestors = tuple(tree.ancestors(run_id))
        identity = facts_of(tree.identity(run_id), ancestors)
        assert identity == facts_of(tree.view(run_id, T0 + 9 * S), ancestors)
        assert (identity.tenant, identity.service, bool(identity.attributes)) == ("acme", "loader", True)
    assert identity.parent_id == parent.id
    assert (identity.ended_at_unix_ns is not None) == ended


def test_a_run_that_has_not_spoken_has_no_identity():
    tree = OperationTree()
    tree.apply(Saying(1).tick(0, 1, 2), T0)
    assert tree.identity(Saying(1).id) is None

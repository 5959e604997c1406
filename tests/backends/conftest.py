"""One Phoenix for all tests of this folder: its start takes longer than they do. Each looks at its own trace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.phoenix import Phoenix, phoenix_server


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    with phoenix_server(tmp_path_factory.mktemp("phoenix")) as server:
        yield server

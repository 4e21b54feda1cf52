"""One small kernel for all tests of this folder."""

from __future__ import annotations

import pytest

from kobox.image import Image
from verdict_kernels import small_image


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return small_image(tmp_path_factory.mktemp("verdict"))

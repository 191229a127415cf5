"""A browser for the tests of what browsers show; the helper modules of this folder."""

import sys
from pathlib import Path

import pytest
from headless_chromium import Page, find_chromium

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """A page of a headless Chromium without network; skips where there is none."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine (set BOZZETTO_CHROMIUM to its program)")
    with Page(program, str(tmp_path_factory.mktemp("chromium")), size=(400, 300)) as browser:
        yield browser


@pytest.fixture(scope="session")
def meshed():
    """The lettered box as a mesh made from splats."""
    from lettered_box import meshed_box

    return meshed_box()

"""The five vendors' own SDKs, unmodified: what each can do with its vendor it can do with Tidings."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Start
from vendors import VENDORS, needs_sdks, python_of, run, service

pytestmark = needs_sdks


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_sdk_works_with_tidings(start: Start, vendor: str, tmp_path: Path) -> None:
    python, flow = python_of(vendor), str(Path(__file__).with_name(f"{vendor}_flow.py"))
    async with service(start) as serving:
        environment = {"TIDINGS_HTTP": serving.url, "TIDINGS_KEY": serving.key}
        printed = await run(python, flow, folder=tmp_path, environment=environment)
    assert printed.endswith("ok\n"), printed

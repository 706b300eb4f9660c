"""`proxyproto-rs demo --serve` has a page to look at."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request


def test_it_prints_where_the_page_is() -> None:
    command = [sys.executable, "-m", "proxyproto_rs.cli", "demo", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            found = next(
                filter(None, (re.search(r"page is (http://\S+) and its token (\S+)", line) for line in lines))
            )
            with urllib.request.urlopen(found[1], timeout=10) as page:
                assert "<title>proxyproto_rs broker</title>" in page.read().decode()
            asking = urllib.request.Request(
                found[1] + "api/blockedClient", headers={"Authorization": f"Bearer {found[2]}"}
            )
            with urllib.request.urlopen(asking, timeout=10) as answer:
                assert b"203.0.113.9" in answer.read()
        finally:
            process.kill()

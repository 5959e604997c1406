"""Install what `make test-conformance` runs: `python -m tests.conformance.install`.

In a place of its own under the checkout (ignored by git): Node.js, and the MCP project's conformance suite and Inspector.
Only the standard library is used. What stands already is left alone until its list of packages changes.
"""

from __future__ import annotations

from pathlib import Path

from tests.foreign.install import ROOT, install_javascript, install_python

HERE = Path(__file__).parent
PLACE = ROOT / ".venv-conformance"
MODULES = PLACE / "js" / "node_modules" / "@modelcontextprotocol"

if __name__ == "__main__":
    install_python(PLACE, HERE / "requirements.txt")
    install_javascript(PLACE / "js", HERE / "package.json", PLACE)

"""A dashboard as Grafana's own classes write it again, for test_linters.py: run in the environment of the linters."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

register_default_plugins()
print(JSONEncoder().encode(Dashboard.from_json(json.loads(Path(sys.argv[1]).read_text()))))

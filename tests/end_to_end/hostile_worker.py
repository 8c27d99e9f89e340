"""A worker whose extraction processes are those of `hostile_child.py`. Arguments: data folder, worker's name."""

from __future__ import annotations

import sys
from pathlib import Path

from connectors import extraction_processes
from infra import roles
from infra.settings import load_settings

DATA, NAME = sys.argv[1:]
extraction_processes.CHILD = (sys.executable, str(Path(__file__).parents[1] / "hostile_child.py"))
roles.run_worker(load_settings(Path(DATA)), NAME)

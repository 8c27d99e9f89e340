"""A process that owns a broker until somebody kills it: writes the broker's process id and address, then waits.

The broker is started from a thread that ends at once, as a caller may do.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from infra.brokers import make_broker

if __name__ == "__main__":
    broker = make_broker("apache" if sys.argv[1] == "apache" else "embedded", Path(sys.argv[2]))
    starter = threading.Thread(target=broker.start)
    starter.start()
    starter.join()
    sys.stdout.write(f"{broker.pid} {broker.bootstrap}\n")
    sys.stdout.flush()
    sys.stdin.read()

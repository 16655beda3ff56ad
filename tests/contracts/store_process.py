"""One of several processes that write to a store; its address comes by standard input."""

import json
import sys

from backend.telemetry import open_store
from tests.contracts import records as full

store = open_store(sys.stdin.readline().strip())
epochs, taken = [], []
for number in range(10):
    epochs.append(store.acquire_lease("process", 10.0))
    store.add_window(full.window(number))
    store.add_policy_version(full.VERSION)
    command = store.take()
    if command is not None:
        taken.append(command.id)
store.close()
json.dump({"epochs": epochs, "taken": taken}, sys.stdout)

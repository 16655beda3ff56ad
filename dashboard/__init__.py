"""The dashboard: pages over the store, in a process of its own.

It sees the domain, the settings, and the store's reader and command queue; never TensorFlow, a
target database or SQL.
"""

from __future__ import annotations

from dashboard.app import create_app
from dashboard.serving import make_server, serve

__all__ = ["create_app", "make_server", "serve"]

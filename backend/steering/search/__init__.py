"""The search for better plans on a live server, a small step at a time."""

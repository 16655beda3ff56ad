"""The processes of a run: what ``run.py process NAME`` does; supervisor.py starts them."""

"""What the commands of run.py do, where that is more than a few lines."""

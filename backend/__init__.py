"""The autopilot: everything that observes, proposes, proves, applies and undoes."""

import os

# Before numpy is imported: the matrices here are small, so that several threads of linear algebra
# only wait for each other, and take the cores from the database.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

"""Steers single queries of an application to proven plans: ``plugins=["query_steering"]``.

Installed as the package ``query_steering`` where the application lives, it needs SQLAlchemy, pglast
and the standard library, and nothing else of the product.
"""

from .plugin import EngineSteering, QuerySteeringPlugin, steering_of
from .sample_spool import SampleSpoolWriter, take_samples
from .sampling import SampledClass, SampledStatement
from .source import TableFile, TableSource
from .spool import Report, SpoolWriter, take_spool
from .statements import fingerprint, functions_called
from .table import SteeringEntry, SteeringTable, TableError, parse_table, write_table
from .timings import ClassTimings, bucket_start_s

__all__ = [
    "ClassTimings",
    "EngineSteering",
    "QuerySteeringPlugin",
    "Report",
    "SampleSpoolWriter",
    "SampledClass",
    "SampledStatement",
    "SpoolWriter",
    "SteeringEntry",
    "SteeringTable",
    "TableError",
    "TableFile",
    "TableSource",
    "bucket_start_s",
    "fingerprint",
    "functions_called",
    "parse_table",
    "steering_of",
    "take_samples",
    "take_spool",
    "write_table",
]

"""What operators have decided, and what waits for them: plans, promotions, the freeze switch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from backend.domain.experiment_plans import ExperimentPlanRecord, PromotionRecord
from backend.domain.records import FreezeRecord
from backend.errors import StoreError
from backend.telemetry.codec import from_document, to_document, to_row
from backend.telemetry.reader import TelemetryReaderTables
from backend.telemetry.schema import experiment_plans, promotions
from backend.telemetry.writer import TelemetryWriterTables

FREEZE = "freeze"


class ControlTables(TelemetryWriterTables, TelemetryReaderTables):
    """Implements ``backend.protocols.ControlWriter`` and ``ControlReader``."""

    def save_experiment_plan(self, plan: ExperimentPlanRecord) -> int:
        """Insert (id None) or update; returns the id.

        Raises:
            StoreError: there is no plan of that id.
        """
        return self._save(experiment_plans, plan.id, to_row(plan))

    def experiment_plans(self, *, limit: int = 50) -> Sequence[ExperimentPlanRecord]:
        """The newest experiment plans."""
        query = sa.select(experiment_plans)
        return self._newest(ExperimentPlanRecord, query, None, None, limit)

    def save_promotion(self, promotion: PromotionRecord) -> int:
        """Insert (id None) or update; returns the id.

        Raises:
            StoreError: there is no promotion of that id.
        """
        return self._save(promotions, promotion.id, to_row(promotion))

    def promotions(self, *, limit: int = 50) -> Sequence[PromotionRecord]:
        """The newest promotions that waited for an operator."""
        return self._newest(PromotionRecord, sa.select(promotions), None, None, limit)

    def save_freeze(self, freeze: FreezeRecord) -> None:
        """Replace the state of the freeze switch."""
        self._save_present(FREEZE, freeze.at, to_document(freeze))

    def freeze(self) -> FreezeRecord | None:
        """The freeze switch as it was thrown last; None: it never was."""
        document = self._present(FREEZE)
        return None if document is None else from_document(FreezeRecord, document)

    def _save(self, table: sa.Table, row_id: int | None, row: dict[str, Any]) -> int:
        with self._writing() as connection:
            if row_id is None:
                statement = sa.insert(table).returning(table.c.id)
                return int(connection.execute(statement, row).scalar_one())
            updated = connection.execute(sa.update(table).where(table.c.id == row_id).values(row))
            if updated.rowcount != 1:
                raise StoreError(f"there is no row {row_id} of {table.name} to update")
            return row_id

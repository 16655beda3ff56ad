"""Policy versions, and what Level 1 and Level 2 made of the policies behind them.

A version names the hint sets that it serves by digest: the next one serves mostly the same, and
each comes with its plans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa

from backend.domain.policies import (
    EvolutionRecord,
    GenomeRecord,
    PolicyUpdateRecord,
    PolicyVersionRecord,
)
from backend.domain.steering import ServedHint
from backend.telemetry.codec import dump_json, from_document, from_row, to_document, to_row
from backend.telemetry.reader import TelemetryReaderTables
from backend.telemetry.redaction import redact_statement
from backend.telemetry.schema import genomes, policy_updates, policy_versions, served_hints
from backend.telemetry.writer import TelemetryWriterTables

EVOLUTION = "evolution"
"""Name of its document in table ``present``."""
_DIGESTS_A_STATEMENT = 500


class PolicyTables(TelemetryWriterTables, TelemetryReaderTables):
    """Implements what ``backend.protocols`` says of policies."""

    def add_policy_version(self, version: PolicyVersionRecord) -> int:
        """Insert and make it the only active one, in one transaction; returns the id."""
        documents = [_hint_document(hint) for hint in version.steering]
        digests = [_digest(document) for document in documents]
        row = to_row(version, omit=("id", "steering")) | {"active": True, "steering": digests}
        hints = [
            {"digest": digest, "document": document}
            for digest, document in zip(digests, documents, strict=True)
        ]
        with self._writing() as connection:
            if not self.is_sqlite:
                connection.execute(
                    sa.text("LOCK TABLE policy_versions IN SHARE ROW EXCLUSIVE MODE")
                )
            connection.execute(
                sa.update(policy_versions)
                .where(policy_versions.c.active.is_(True))
                .values(active=False)
            )
            if hints:
                connection.execute(self._upsert(served_hints).on_conflict_do_nothing(), hints)
            statement = sa.insert(policy_versions).returning(policy_versions.c.id)
            return int(connection.execute(statement, row).scalar_one())

    def policy_versions(self, *, limit: int = 200) -> Sequence[PolicyVersionRecord]:
        """The newest policy versions."""
        query = sa.select(policy_versions).order_by(policy_versions.c.id.desc()).limit(limit)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
            hints = _hints(connection, sorted({d for row in rows for d in row["steering"]}))
        return [
            replace(
                from_row(PolicyVersionRecord, dict(row) | {"steering": []}),
                steering=tuple(hints[digest] for digest in row["steering"]),
            )
            for row in reversed(rows)
        ]

    def add_policy_update(self, record: PolicyUpdateRecord) -> int:
        """Append an attempt to replace a learned policy; returns the id."""
        with self._writing() as connection:
            statement = sa.insert(policy_updates).returning(policy_updates.c.id)
            return int(connection.execute(statement, to_row(record)).scalar_one())

    def policy_updates(self, *, limit: int = 200) -> Sequence[PolicyUpdateRecord]:
        """The newest attempts to replace a learned policy."""
        return self._newest(PolicyUpdateRecord, sa.select(policy_updates), None, None, limit)

    def add_genome(self, record: GenomeRecord) -> int:
        """Append a measured genome; returns the id."""
        with self._writing() as connection:
            statement = sa.insert(genomes).returning(genomes.c.id)
            return int(connection.execute(statement, to_row(record)).scalar_one())

    def genomes(
        self, *, study: str | None = None, deployed: bool = False, limit: int = 1000
    ) -> Sequence[GenomeRecord]:
        """The newest measured genomes, of one study or of all; or only those that were deployed."""
        query = sa.select(genomes)
        if deployed:
            query = query.where(genomes.c.deployed)
        if study is not None:
            query = query.where(genomes.c.study == study)
        return self._newest(GenomeRecord, query, None, None, limit)

    def save_evolution(self, record: EvolutionRecord) -> None:
        """Replace the state of the evolution."""
        self._save_present(EVOLUTION, record.at, to_document(record))

    def evolution(self) -> EvolutionRecord | None:
        """The evolution that is at work, or ended last; None before the first."""
        document = self._present(EVOLUTION)
        return None if document is None else from_document(EvolutionRecord, document)


def _hint_document(hint: ServedHint) -> dict[str, object]:
    return to_document(hint) | {"text": redact_statement(hint.text)}


def _digest(document: Mapping[str, object]) -> str:
    return hashlib.sha256(dump_json(document).encode()).hexdigest()


def _hints(connection: sa.Connection, digests: Sequence[str]) -> Mapping[str, ServedHint]:
    found: dict[str, ServedHint] = {}
    for start in range(0, len(digests), _DIGESTS_A_STATEMENT):
        some = digests[start : start + _DIGESTS_A_STATEMENT]
        query = sa.select(served_hints).where(served_hints.c.digest.in_(some))
        for row in connection.execute(query).mappings():
            found[row["digest"]] = from_document(ServedHint, row["document"])
    return found

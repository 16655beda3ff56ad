"""The never-list: settings that nobody may change through this product, and why.

The catalogue is an allow-list already. This list stands behind it: should a catalogue file ever
name one of these settings, loading it fails, and a request for one is refused with the reason.
Meanings: https://www.postgresql.org/docs/current/runtime-config.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from backend.errors import NeverKnobError

NEVER: Mapping[str, tuple[str, ...]] = {
    "committed data could be lost or damaged": (
        "fsync",
        "full_page_writes",
        "synchronous_(commit|standby_names)",
        "data_sync_retry",
        "data_checksums",
        "zero_damaged_pages",
        "ignore_.*",
        "wal_(level|sync_method|log_hints|consistency_checking|init_zero|recycle)",
        "restart_after_crash",
        "debug_.*",
        "allow_(alter_system|system_table_mods|in_place_tablespaces)",
    ),
    "backups, recovery and replication depend on it": (
        "archive_.*",
        "restore_command",
        "(recovery|primary|hot_standby|max_standby|wal_receiver|wal_sender)(_.*)?",
        "(promote_trigger_file|trace_recovery_messages|vacuum_defer_cleanup_age)",
        "(synchronized_standby_slots|sync_replication_slots|summarize_wal|wal_summary_keep_time)",
        "max_(wal_senders|replication_slots|slot_wal_keep_size|active_replication_origins)",
        "max_(logical_replication|sync|parallel_apply)_workers.*",
        "(wal_keep_size|wal_retrieve_retry_interval|wal_decode_buffer_size)",
        "track_commit_timestamp",
    ),
    "without it dead rows pile up and transaction numbers wrap around": (
        "autovacuum",
        ".*freeze.*",
        ".*failsafe.*",
        "(autovacuum_worker_slots|old_snapshot_threshold|track_counts)",
    ),
    "it changes what statements mean or return": (
        "(default_)?transaction_(isolation|read_only|deferrable)",
        "(search_path|row_security|session_replication_role|role|session_authorization)",
        "(datestyle|intervalstyle|timezone.*|lc_.*|client_encoding|server_encoding)",
        "(standard_conforming_strings|backslash_quote|array_nulls|transform_null_equals)",
        "(bytea_output|xmlbinary|xmloption|extra_float_digits|quote_all_identifiers)",
        "(default|temp)_tablespaces?",
        "default_(table_access_method|toast_compression|text_search_config|with_oids)",
        "(check_function_bodies|gin_fuzzy_search_limit|event_triggers|exit_on_error)",
        "(lo_compat_privileges|createrole_self_grant|restrict_nonsystem_relation_kind)",
        "(escape_string_warning|synchronize_seqscans|icu_validation_level)",
    ),
    "it ends or refuses clients' statements, transactions or sessions": (
        "(?!checkpoint_timeout$).*_timeout",
        "(tcp_.*|client_connection_check_interval|temp_file_limit|max_stack_depth)",
        "(max_connections|max_worker_processes|(superuser_)?reserved_connections)",
        "max_(prepared_transactions|locks_per_transaction|pred_locks_.*|files_per_process)",
        "max_notify_queue_pages",
    ),
    "it decides who may connect": (
        "(password_encryption|scram_iterations|md5_password_warnings|db_user_namespace)",
        "(ssl|krb|gss|oauth|hba|ident|ldap|pam|radius)(_.*)?",
        "(listen_addresses|port|unix_socket_.*|bonjour.*|(post|pre)_auth_delay)",
    ),
    "it loads code or moves the server's files": (
        "(shared|session|local)_preload_libraries",
        "(dynamic_library_path|extension_.*|jit_provider|external_pid_file)",
        "(data_directory.*|config_file|include.*|stats_temp_directory|cluster_name)",
    ),
    "logs and audits depend on it": (
        "log_.*",
        "(logging_collector|syslog_.*|event_source|update_process_title|backtrace_functions)",
        "(client_min_messages|trace_.*)",
    ),
    "our own measurements depend on it": (
        "(track_(?!commit_timestamp|counts).*|compute_query_id|stats_fetch_consistency)",
        r"(pg_stat_statements|auto_explain)\..*",
    ),
}

_RULES = tuple(
    (re.compile("|".join(f"(?:{pattern})" for pattern in patterns)), reason)
    for reason, patterns in NEVER.items()
)


def never_reason(name: str) -> str | None:
    """Return why a setting is never touched, None where it is not on the list.

    Setting names are case-insensitive, as the server takes them.
    """
    plain = name.strip().lower()
    return next((reason for rule, reason in _RULES if rule.fullmatch(plain)), None)


def refuse_if_never(name: str) -> None:
    """Check a setting's name against the never-list.

    Raises:
        NeverKnobError: it is on the list; the message holds the reason.
    """
    reason = never_reason(name)
    if reason is not None:
        raise NeverKnobError(
            f"{name} is never changed here: {reason}",
            remedy="if you must, change it yourself on the server, outside this product",
        )

"""What is asked of a PostgreSQL server for a slot."""

from wisp_events.sources.postgres_slot import creation


def test_a_slot_is_carried_to_standbys_where_the_server_can() -> None:
    """Older servers don't know the parameter, and would refuse."""
    assert creation(160009) == creation(100000) == "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')"
    assert creation(170000) == "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', failover => true)"

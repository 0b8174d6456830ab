"""A reader's rights at a database are taken away while it runs, and given back: what it says meanwhile, and that nothing is lost for it."""

import json
from typing import Any

from fixtures.mariadb_shop import MariaShop
from fixtures.shop import ALL, Followed, Shop
from wisp_api import conditions


def told(shop: Followed, count: int) -> list[Any]:
    """What the log holds of so many changes: each one's row, or its kind where it has none."""
    events = sorted(shop.wait_events(count), key=lambda event: event.sequence or "")
    found = [json.loads(bytes(event.data or b"null")) for event in events]
    return [data["new"]["id"] if data["new"] else data["op"] for data in found]


def restart(shop: Followed) -> None:
    """Let the reader connect anew."""
    assert shop.reader
    shop.reader.kill()
    shop.reader.start()


def test_a_role_of_postgresql_loses_its_rights(shop: Shop) -> None:
    """The stream that runs goes on without REPLICATION and the table's ownership; the next one is refused, and nothing is missing when they are back."""
    role = f"clerk_{shop.database}"
    shop.server.execute(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'x'")
    shop.server.execute(f"GRANT CREATE ON DATABASE {shop.database} TO {role}")
    shop.sql("CREATE TABLE orders (id int PRIMARY KEY)", f"ALTER TABLE orders OWNER TO {role}")
    shop.write_dsn(shop.server.dsn(role, "x", shop.database))
    shop.wish(("public.orders", ALL))
    shop.wait_ready()
    shop.server.execute(f"ALTER ROLE {role} NOREPLICATION PASSWORD 'y'")
    shop.sql("ALTER TABLE orders OWNER TO postgres", "INSERT INTO orders VALUES (1)")
    shop.wish(("public.orders", ALL))
    shop.wait_status(lambda status: status.reason == conditions.AUTHENTICATION_FAILED, "the password is not missed")
    assert told(shop, 1) == [1]
    shop.write_dsn(shop.server.dsn(role, "y", shop.database))
    status = shop.wait_status(lambda status: status.reason == conditions.PERMISSION_DENIED, "the right is not missed")
    assert "ALTER ROLE" in status.message
    shop.sql("INSERT INTO orders VALUES (2)")
    shop.server.execute(f"ALTER ROLE {role} REPLICATION")
    shop.wait_ready()
    assert told(shop, 2) == [1, 2]
    shop.wish(draining=True)
    shop.wait_status(lambda status: status.drained, "the reader does not drain")


def test_a_user_of_mariadb_loses_its_rights(maria: MariaShop) -> None:
    """The stream that runs goes on without REPLICATION SLAVE; the next one is refused with the GRANT, and nothing is missing when it is back."""
    maria.server.execute("CREATE USER IF NOT EXISTS porter IDENTIFIED BY 'x'")
    rights = ["REPLICATION SLAVE", "REPLICATION CLIENT", *["BINLOG MONITOR"] * (not maria.server.mysql)]
    for right in rights:
        maria.server.execute(f"GRANT {right} ON *.* TO porter")
    maria.sql("CREATE TABLE orders (id int PRIMARY KEY)")
    maria.server.execute(f"GRANT SELECT ON {maria.table('orders')} TO porter")
    maria.write_dsn(maria.server.dsn("porter", "x"))
    maria.wish((maria.table("orders"), ALL))
    maria.wait_ready()
    maria.server.execute("REVOKE REPLICATION SLAVE ON *.* FROM porter")
    maria.sql("INSERT INTO orders VALUES (1)")
    assert told(maria, 1) == [1]
    restart(maria)
    status = maria.wait_status(lambda status: status.reason == conditions.PERMISSION_DENIED, "the right is not missed")
    assert "GRANT REPLICATION SLAVE" in status.message
    maria.sql("INSERT INTO orders VALUES (2)")
    maria.server.execute("GRANT REPLICATION SLAVE ON *.* TO porter")
    maria.wait_ready()
    assert told(maria, 2) == [1, 2]

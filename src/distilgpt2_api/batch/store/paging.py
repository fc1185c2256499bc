"""Pages of a list: each starts after the last row of the page before, even if rows were added or deleted since."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, RowMapping, Table, and_, or_, select


def read_page(
    connection: Connection,
    table: Table,
    key: Column[Any],
    conditions: Sequence[Any],
    *,
    after: str | None,
    limit: int,
    is_ascending: bool,
) -> tuple[Sequence[RowMapping], bool]:
    """At most `limit` rows after the row `after`, ordered by `created_s`, then `key`; and whether there are more."""
    created_s = table.c.created_s
    query = select(table).where(*conditions)
    if after is not None:
        last_s = select(created_s).where(key == after).scalar_subquery()
        is_later = created_s > last_s if is_ascending else created_s < last_s
        is_next = key > after if is_ascending else key < after
        query = query.where(or_(is_later, and_(created_s == last_s, is_next)))
    order = [created_s.asc(), key.asc()] if is_ascending else [created_s.desc(), key.desc()]
    rows = connection.execute(query.order_by(*order).limit(limit + 1)).mappings().all()
    return rows[:limit], len(rows) > limit

-- The running totals, and which changes they hold.
CREATE TABLE order_totals (
  minute timestamptz PRIMARY KEY,
  orders bigint NOT NULL,          -- that came in this minute, less those that were deleted in it
  total numeric(14, 2) NOT NULL    -- by how much the worth of all orders changed in this minute
);
CREATE TABLE order_totals_changes (
  event_id text PRIMARY KEY,
  counted timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON order_totals_changes (counted);
CREATE VIEW order_stream AS
  SELECT minute, orders, total, sum(orders) OVER past AS orders_so_far, sum(total) OVER past AS total_so_far
  FROM order_totals WINDOW past AS (ORDER BY minute);
ALTER TABLE order_totals OWNER TO shop;
ALTER TABLE order_totals_changes OWNER TO shop;

-- The tables of the shop. Each service uses its own only; in production each has its own database.

-- stock
CREATE TABLE IF NOT EXISTS products (
    name text PRIMARY KEY,
    available integer NOT NULL CHECK (available >= 0)
);
CREATE TABLE IF NOT EXISTS reservations (
    order_id uuid PRIMARY KEY,
    product text NOT NULL REFERENCES products,
    count integer NOT NULL CHECK (count > 0),
    -- Whether the order is known to be committed.
    confirmed boolean NOT NULL DEFAULT false,
    reserved_at timestamptz NOT NULL DEFAULT now()
);

-- orders
CREATE TABLE IF NOT EXISTS orders (
    id uuid PRIMARY KEY,
    customer text NOT NULL,
    product text NOT NULL,
    count integer NOT NULL CHECK (count > 0),
    placed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS orders_placed_at ON orders (placed_at);
-- Events of committed orders that are not dispatched yet.
CREATE TABLE IF NOT EXISTS outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event text NOT NULL,
    data jsonb NOT NULL
);

-- notifications: one row per order, since an event may arrive twice.
CREATE TABLE IF NOT EXISTS notifications (
    order_id uuid PRIMARY KEY,
    customer text NOT NULL,
    sent boolean NOT NULL
);

-- reports: one row per day, since a run may be repeated.
CREATE TABLE IF NOT EXISTS reports (
    day date PRIMARY KEY,
    orders bigint NOT NULL,
    items bigint NOT NULL
);

-- Ends transactions that hang: what is not committed after five minutes never will be.
DO $$ BEGIN
    EXECUTE format(
        'ALTER DATABASE %I SET idle_in_transaction_session_timeout = ''1min''', current_database()
    );
END $$;

INSERT INTO products VALUES ('nut', 100), ('bolt', 20) ON CONFLICT DO NOTHING;

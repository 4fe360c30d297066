"""``nameko.contrib.sqlalchemy`` on PostgreSQL: ``scripts/with_postgresql pytest ...``."""

import asyncio
import os
import threading

import pytest
from sqlalchemy import ForeignKey, create_engine, event, func, make_url, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nameko.contrib import sqlalchemy as contrib
from nameko.contrib.sqlalchemy import AsyncDatabaseSession, DatabaseSession, retry_conflicts
from nameko.exceptions import ConfigurationError, RemoteError
from nameko.extensions import DependencyProvider, Entrypoint
from nameko.rpc import rpc
from nameko.standalone.rpc import ClusterRpcProxy
from nameko.testing.services import dummy, worker_factory
from nameko.testing.utils import get_extension


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    orders: Mapped[int] = mapped_column(default=0)


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    # Checked at the commit.
    customer: Mapped[int] = mapped_column(
        ForeignKey(Customer.id, deferrable=True, initially="DEFERRED")
    )


@pytest.fixture(scope="module")
def server_url():
    if "POSTGRESQL_URL" not in os.environ:
        pytest.fail("POSTGRESQL_URL is not set: run scripts/with_postgresql pytest", pytrace=False)
    return os.environ["POSTGRESQL_URL"].replace("postgresql:", "postgresql+psycopg:")


@pytest.fixture
def engine(server_url):
    """An engine of the test, with one customer in the tables."""
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        Base.metadata.drop_all(connection)
        Base.metadata.create_all(connection)
        connection.execute(text("INSERT INTO customers (id, orders) VALUES (1, 0)"))
    yield engine
    engine.dispose()


def place(self, customer=1, fail=False):
    order = Order(customer=customer)
    self.session.add(order)
    self.session.flush()
    if fail:
        raise ValueError("by the method")
    return order.id


def get(self, order_id):
    order = self.session.get(Order, order_id)
    return None if order is None else order.customer


async def place_async(self, customer=1, fail=False):
    order = Order(customer=customer)
    self.session.add(order)
    await self.session.flush()
    if fail:
        raise ValueError("by the method")
    return order.id


async def get_async(self, order_id):
    order = await self.session.get(Order, order_id)
    return None if order is None else order.customer


class Shop:
    """A service under test, its client, and its pool."""

    def __init__(self, container, client):
        self.container = container
        self.client = client
        self.provider = get_extension(container, contrib._SessionProvider)

    @property
    def engine(self):
        return getattr(self.provider.engine, "sync_engine", self.provider.engine)

    @property
    def pool(self):
        return self.engine.pool

    def spawn(self, method_name, *args):
        """Runs a method without a caller."""
        entrypoint = get_extension(self.container, Entrypoint, method_name=method_name)
        self.container.spawn_worker(entrypoint, args, {})


@pytest.fixture
def start(serve, cluster, server_url, engine, uid):
    def start(provider, body, **config):
        body = {"name": "shop-" + uid, **body, "session": provider}
        service_cls = type("Service", (), body)
        url = make_url(server_url).update_query_dict({"application_name": service_cls.name})
        config["DATABASE_URL"] = url.render_as_string(hide_password=False)
        container = serve(service_cls, **config)
        return Shop(container, cluster[service_cls.name])

    return start


@pytest.fixture(params=["sync", "async"])
def shop(request, start):
    if request.param == "sync":
        return start(DatabaseSession(), {"place": rpc(place), "get": rpc(get)})
    return start(AsyncDatabaseSession(), {"place": rpc(place_async), "get": rpc(get_async)})


def count_orders(engine):
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(Order))


def test_a_reply_means_that_the_row_is_there(shop):
    """200 times from two clients: the transaction is committed before the reply."""
    config = shop.container.config
    seen = []

    def place_and_get():
        with ClusterRpcProxy(config, timeout=20) as cluster:
            service = cluster[shop.container.service_name]
            seen.extend(service.get(service.place()) for _ in range(100))

    threads = [threading.Thread(target=place_and_get) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert seen == [1] * 200


def test_a_deferred_constraint_is_the_callers_error(shop, engine):
    with pytest.raises(RemoteError, match=r"IntegrityError .*ForeignKeyViolation"):
        shop.client.place(99)
    assert shop.client.get(shop.client.place()) == 1
    assert count_orders(engine) == 1
    assert not shop.container.death.ready()


def test_an_exception_rolls_back(shop, engine):
    with pytest.raises(RemoteError, match="by the method"):
        shop.client.place(fail=True)
    assert count_orders(engine) == 0
    assert shop.client.place() is not None
    assert count_orders(engine) == 1


def test_another_providers_error_rolls_back(start, engine):
    class Refusing(DependencyProvider):
        def before_reply(self, worker_ctx, outcome):
            raise ValueError("refused")

    # The session is declared last.
    shop = start(DatabaseSession(), {"refusing": Refusing(), "place": rpc(place)})
    with pytest.raises(RemoteError, match="refused"):
        shop.client.place()
    assert count_orders(engine) == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_connection_lost_at_the_commit_leaves_the_outcome_unknown(start, engine, kind):
    provider, method = {
        "sync": (DatabaseSession(), place),
        "async": (AsyncDatabaseSession(), place_async),
    }[kind]
    shop = start(provider, {"place": rpc(method)})
    lost = []

    @event.listens_for(shop.engine, "commit")
    def terminate(connection):
        if not lost:
            lost.append(
                connection.connection.dbapi_connection.info.backend_pid
                if kind == "sync"
                else connection.connection.driver_connection.info.backend_pid
            )
            with engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend({}, 5000)".format(lost[0])))

    with pytest.raises(RemoteError, match=r"CommitOutcomeUnknown .* may or may not"):
        shop.client.place()
    assert shop.client.place() is not None


def test_a_connection_lost_before_the_commit_is_a_plain_error(start, engine):
    def lose(self):
        pid = self.session.scalar(text("SELECT pg_backend_pid()"))
        with engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend({}, 5000)".format(pid)))
        self.session.add(Order(customer=1))

    shop = start(DatabaseSession(), {"lose": rpc(lose)})
    with pytest.raises(RemoteError, match=r"^OperationalError|^RemoteError: OperationalError"):
        shop.client.lose()
    assert count_orders(engine) == 0


def wait_for_disconnects(engine, shop):
    """Waits until the server has no connection of the service."""
    connections = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
    with engine.connect() as connection:
        while connection.scalar(connections, {"name": shop.container.service_name}):
            threading.Event().wait(0.005)


class TestPool:
    """Ten workers that do not end by themselves leave the pool whole."""

    def check(self, shop):
        """All connections are back, so that as many workers can have one each."""
        while shop.pool.checkedout():
            threading.Event().wait(0.005)
        replies = [shop.client.place.call_async() for _ in range(10)]
        assert len({reply.result() for reply in replies}) == 10

    def test_after_timeouts_of_coroutines(self, start, engine):
        async def limit(call, next):
            if call.method_name != "hang":
                return await next()
            return await asyncio.wait_for(next(), 0.05)

        async def hang(self):
            await self.session.execute(text("SELECT pg_sleep(20)"))

        shop = start(
            AsyncDatabaseSession(engine_options={"pool_size": 10, "max_overflow": 0}),
            {"hang": rpc(hang), "place": rpc(place_async), "layers": [limit]},
        )
        replies = [shop.client.hang.call_async() for _ in range(10)]
        for reply in replies:
            with pytest.raises(RemoteError, match="TimeoutError"):
                reply.result()
        self.check(shop)

    def test_after_timeouts_of_statements(self, start, engine):
        def hang(self):
            self.session.execute(text("SET LOCAL statement_timeout = 50"))
            self.session.execute(text("SELECT pg_sleep(20)"))

        shop = start(
            DatabaseSession(engine_options={"pool_size": 10, "max_overflow": 0}),
            {"hang": rpc(hang), "place": rpc(place)},
        )
        replies = [shop.client.hang.call_async() for _ in range(10)]
        for reply in replies:
            with pytest.raises(RemoteError, match="QueryCanceled"):
                reply.result()
        self.check(shop)

    def test_after_a_kill(self, start, engine):
        began = threading.Semaphore(0)

        def spin(self):
            self.session.add(Order(customer=1))
            self.session.flush()
            began.release()
            while True:
                self.session.execute(text("SELECT 1"))

        shop = start(
            DatabaseSession(engine_options={"pool_size": 10, "max_overflow": 0}),
            {"spin": dummy(spin)},
        )
        returned = threading.Semaphore(0)
        event.listen(shop.pool, "checkin", lambda *args: returned.release())
        for _ in range(10):
            shop.spawn("spin")
        for _ in range(10):
            assert began.acquire(timeout=20)
        shop.container.kill()
        for _ in range(10):
            assert returned.acquire(timeout=20)
        wait_for_disconnects(engine, shop)
        assert count_orders(engine) == 0

    def test_a_stop_closes_all_connections(self, shop, engine):
        shop.client.place()
        shop.container.stop()
        wait_for_disconnects(engine, shop)


class TestRetries:
    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_conflicts_are_retried(self, start, engine, kind):
        def increment(self):
            customer = self.session.get(Customer, 1)
            customer.orders += 1

        async def increment_async(self):
            customer = await self.session.get(Customer, 1)
            customer.orders += 1

        cls, method = {
            "sync": (DatabaseSession, increment),
            "async": (AsyncDatabaseSession, increment_async),
        }[kind]
        provider = cls(engine_options={"isolation_level": "SERIALIZABLE"})
        shop = start(provider, {"increment": rpc(retry_conflicts(attempts=50)(method))})
        replies = [shop.client.increment.call_async() for _ in range(20)]
        for reply in replies:
            reply.result()
        with engine.connect() as connection:
            assert connection.scalar(select(Customer.orders)) == 20

    def test_the_last_conflict_is_the_callers_error(self, start, engine):
        runs = []

        @retry_conflicts(attempts=2)
        def conflict(self):
            runs.append(1)
            self.session.execute(text("DO $$BEGIN RAISE SQLSTATE '40001'; END$$"))

        shop = start(DatabaseSession(), {"conflict": rpc(conflict)})
        with pytest.raises(RemoteError, match="OperationalError"):
            shop.client.conflict()
        assert len(runs) == 2

    def test_other_errors_are_not_retried(self, start, engine):
        runs = []

        @retry_conflicts()
        def fail(self):
            runs.append(1)
            self.session.execute(text("SELECT 1 / 0"))

        shop = start(DatabaseSession(), {"fail": rpc(fail)})
        with pytest.raises(RemoteError, match="DataError"):
            shop.client.fail()
        assert len(runs) == 1

    def test_without_a_session_there_is_nothing_to_retry(self):
        class Service:
            name = "service"

            @retry_conflicts()
            def method(self): ...

        with pytest.raises(TypeError, match="needs one dependency DatabaseSession in `Service`"):
            worker_factory(Service).method()

    @pytest.mark.parametrize("attempts", [0, -1, "3", True, retry_conflicts])
    def test_attempts_are_a_positive_number(self, attempts):
        with pytest.raises(ValueError, match="takes a positive number"):
            retry_conflicts(attempts)


class TestConfiguration:
    def service(self, **options):
        class Service:
            name = "service"
            session = DatabaseSession(**options)

            @dummy
            def method(self): ...

        return Service

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            (None, "DATABASE_URL must be the URL of the database of `service`, such as postgre"),
            ({"other": "sqlite://"}, "or a mapping of service names to URLs"),
            ("nonsense", "DATABASE_URL: Could not parse"),
            ("nothing://localhost", "DATABASE_URL: Can't load plugin"),
        ],
    )
    def test_a_wrong_url_fails_the_start(self, serve, url, message):
        with pytest.raises(ConfigurationError, match=message):
            serve(self.service(), DATABASE_URL=url)

    @pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
    def test_postgresql_needs_no_driver_in_the_url(self, serve, server_url, scheme):
        url = server_url.replace("postgresql+psycopg", scheme)
        container = serve(self.service(), DATABASE_URL=url)
        with get_extension(container, DatabaseSession).engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1

    def test_each_service_may_have_its_own(self, serve):
        container = serve(self.service(url_key="URLS"), URLS={"service": "sqlite://"})
        assert get_extension(container, DatabaseSession).engine.dialect.name == "sqlite"

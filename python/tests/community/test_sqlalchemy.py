"""nameko-sqlalchemy: sessions for workers, with SQLite and PostgreSQL."""

import threading

import pytest
from nameko_sqlalchemy import Database, DatabaseSession, transaction_retry
from sqlalchemy import Column, Integer, String
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.declarative import declarative_base
from sqlalchemy.pool import StaticPool

from nameko.events import EventDispatcher, event_handler
from nameko.rpc import rpc
from nameko.testing.services import entrypoint_waiter


@pytest.fixture
def model(uid):
    """A model with a table of its own."""
    base = declarative_base(name="Base")

    class Note(base):
        __tablename__ = "notes_" + uid
        id = Column(Integer, primary_key=True)
        text = Column(String(20), nullable=False, unique=True)

    return Note


@pytest.fixture(params=["sqlite", "postgresql"])
def db_uri(request, tmp_path):
    if request.param == "sqlite":
        return "sqlite:///{}".format(tmp_path / "notes.db")
    return request.getfixturevalue("postgresql_url")


@pytest.fixture
def notes(serve, model, db_uri, uid):
    class Notes:
        name = "notes-" + uid
        db = Database(model.__bases__[0])
        dispatch = EventDispatcher()

        @rpc
        def add(self, text):
            with self.db.get_session() as session:
                session.add(model(text=text))
            self.dispatch("added", text)

        @rpc(expected_exceptions=IntegrityError)
        def add_many(self, texts):
            session = self.db.session
            for text in texts:
                session.add(model(text=text))
                session.flush()
            session.commit()

        @rpc
        def texts(self):
            return [note.text for note in self.db.session.query(model).order_by(model.id)]

        @event_handler("notes-" + uid, "added")
        def count(self, text):
            return self.db.session.query(model).count()

    container = serve(Notes, DB_URIS={"notes-{}:Base".format(uid): db_uri})
    [provider] = [dep for dep in container.dependencies if isinstance(dep, Database)]
    model.metadata.create_all(provider.engine)
    yield container
    container.stop()
    assert not provider.dbs, "sessions were not released"


def test_rolls_back_failed_transactions(notes, cluster):
    service = cluster[notes.service_name]
    service.add("one")
    with pytest.raises(Exception, match="IntegrityError"):
        service.add_many(["two", "one"])
    service.add_many(["three"])
    assert service.texts() == ["one", "three"]


def test_event_handlers_have_sessions(notes, cluster):
    with entrypoint_waiter(notes, "count") as result:
        cluster[notes.service_name].add("one")
    assert result.get() == 1


def test_supports_concurrent_workers(notes, cluster):
    replies = [cluster[notes.service_name].add.call_async(str(number)) for number in range(30)]
    for reply in replies:
        reply.result()
    assert sorted(cluster[notes.service_name].texts(), key=int) == [str(n) for n in range(30)]


def test_supports_a_database_in_memory(serve, cluster, model, uid):
    """`:memory:` has a database per thread, unless the engine is configured otherwise."""
    base = model.__bases__[0]

    class Notes:
        name = "notes-" + uid
        session = DatabaseSession(
            base,
            engine_options={
                "poolclass": StaticPool,
                "connect_args": {"check_same_thread": False},
            },
        )

        @rpc
        def add(self, text):
            base.metadata.create_all(self.session.get_bind())
            self.session.add(model(text=text))
            self.session.commit()
            return self.session.query(model).count()

    serve(Notes, max_workers=1, DB_URIS={"notes-{}:Base".format(uid): "sqlite:///:memory:"})
    assert [cluster[Notes.name].add(text) for text in "ab"] == [1, 2]


def test_a_worker_uses_a_single_thread(serve, cluster, model, uid):
    """The default pool of `:memory:` has a connection per thread, so a worker must stay on one.

    It closes connections if there are more threads than ``pool_size``, 5 by default.
    """
    base = model.__bases__[0]

    class Notes:
        name = "notes-" + uid
        session = DatabaseSession(base, engine_options={"pool_size": 100})

        @rpc
        def add(self, text):
            base.metadata.drop_all(self.session.get_bind())
            base.metadata.create_all(self.session.get_bind())
            self.session.add(model(text=text))
            self.session.commit()
            return self.session.query(model).count()

    serve(Notes, DB_URIS={"notes-{}:Base".format(uid): "sqlite:///:memory:"})
    replies = [cluster[Notes.name].add.call_async(str(number)) for number in range(10)]
    assert [reply.result() for reply in replies] == [1] * 10


def test_retries_transactions(serve, cluster, uid):
    attempts = []

    class Service:
        name = "service-" + uid

        @rpc
        @transaction_retry(total=2)
        def method(self):
            attempts.append(threading.get_ident())
            if len(attempts) < 3:
                raise OperationalError("statement", {}, Exception(), connection_invalidated=True)
            return "done"

    serve(Service)
    assert cluster[Service.name].method() == "done"
    assert len(set(attempts)) == 1

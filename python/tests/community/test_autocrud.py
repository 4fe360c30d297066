"""nameko-autocrud: RPC methods for the rows of a table."""

import pytest
from nameko_autocrud import AutoCrudWithEvents
from nameko_sqlalchemy import DatabaseSession
from sqlalchemy import Column, Integer, String
from sqlalchemy.ext.declarative import declarative_base

from nameko.events import EventDispatcher, event_handler
from nameko.exceptions import RemoteError
from nameko.testing.services import entrypoint_waiter


def test_creates_updates_lists_and_deletes_rows(serve, cluster, tmp_path, uid):
    base = declarative_base(name="Base")

    class Book(base):
        __tablename__ = "books"
        id = Column(Integer, primary_key=True)
        title = Column(String)

    class Library:
        name = "library-" + uid
        session = DatabaseSession(base)
        dispatch = EventDispatcher()
        books = AutoCrudWithEvents(
            session,
            dispatch,
            "book",
            model_cls=Book,
            get_method_name="get_book",
            list_method_name="list_books",
            create_method_name="create_book",
            update_method_name="update_book",
            delete_method_name="delete_book",
            create_event_name="book_created",
        )

        @event_handler("library-" + uid, "book_created")
        def shelve(self, data):
            return data["book"]["title"]

    uri = "sqlite:///{}".format(tmp_path / "books.db")
    container = serve(Library, DB_URIS={"library-{}:Base".format(uid): uri})
    [provider] = [dep for dep in container.dependencies if isinstance(dep, DatabaseSession)]
    base.metadata.create_all(provider.engine)
    library = cluster[Library.name]
    with entrypoint_waiter(container, "shelve") as shelved:
        assert library.create_book({"title": "Emma"}) == {"id": 1, "title": "Emma"}
    assert shelved.get() == "Emma"
    library.create_book({"title": "Persuasion"})
    library.update_book(1, {"title": "Emma, again"})
    filters = [{"field": "title", "op": "like", "value": "Emma%"}]
    assert library.list_books(filters=filters) == [{"id": 1, "title": "Emma, again"}]
    library.delete_book(1)
    with pytest.raises(RemoteError, match="does not exist"):
        library.get_book(1)

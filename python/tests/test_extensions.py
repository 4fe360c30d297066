"""Declarations of entrypoints and dependencies, and their instances in a container."""

import inspect
from unittest.mock import Mock

import pytest

from nameko.containers import ServiceContainer, get_service_name
from nameko.exceptions import ConfigurationError, IncorrectSignature
from nameko.extensions import DependencyProvider, Entrypoint, Extension, SharedExtension
from nameko.rpc import RpcProxy, rpc
from nameko.testing.services import dummy
from nameko.testing.utils import get_extension


def test_container_lists_all_extensions_of_a_service():
    class Service:
        name = "service"
        other = RpcProxy("other")

        @rpc
        def method(self):
            pass

    container = ServiceContainer(Service, config={})
    names = sorted(type(extension).__name__ for extension in container.extensions)
    assert names == ["QueueConsumer", "ReplyListener", "Rpc", "RpcConsumer", "RpcProxy"]


def test_declaring_an_entrypoint_returns_the_method_unchanged():
    def method(self):
        pass

    assert rpc(method) is method
    assert rpc(expected_exceptions=ValueError)(method) is method
    assert len(method.nameko_entrypoints) == 2


def test_binding_creates_instances_from_the_same_arguments():
    class Provider(DependencyProvider):
        def __init__(self, option):
            self.option = option

    class Service:
        name = "service"
        first = Provider("a")
        second = Provider("b")

    container = ServiceContainer(Service, {})
    bound = {provider.attr_name: provider for provider in container.dependencies}
    assert {name: provider.option for name, provider in bound.items()} == {
        "first": "a",
        "second": "b",
    }
    assert bound["first"] is not Service.first
    assert not Service.first.is_bound()
    with pytest.raises(RuntimeError, match="Cannot `bind` a bound extension"):
        bound["first"].bind(container, "third")


def test_shared_extensions_have_one_instance_per_container_and_key():
    class Shared(SharedExtension):
        pass

    class Provider(DependencyProvider):
        shared = Shared()

    class Service:
        name = "service"
        one = Provider()
        two = Provider()

    container = ServiceContainer(Service, {})
    one, two = container.dependencies
    assert one.shared is two.shared
    assert ServiceContainer(Service, {}).shared_extensions[Shared] is not one.shared


def test_sub_extensions_may_be_set_in_init():
    class Outer(DependencyProvider):
        def __init__(self):
            self.inner = Extension()

    class Service:
        name = "service"
        outer = Outer()

    container = ServiceContainer(Service, {})
    (inner,) = container.subextensions
    assert inner.is_bound()


def test_a_dependency_may_add_entrypoints_when_it_is_bound():
    class Adder(DependencyProvider):
        def bind(self, container, attr_name):
            @rpc
            def added(self):
                pass

            container.service_cls.added = added
            return super().bind(container, attr_name)

    class Service:
        name = "service"
        adder = Adder()

    container = ServiceContainer(Service, {})
    assert [entrypoint.method_name for entrypoint in container.entrypoints] == ["added"]


def test_a_missing_or_wrong_service_name_is_an_error():
    class Nameless:
        pass

    class Numbered:
        name = 1

    with pytest.raises(ConfigurationError, match=r"must define a `name` attribute \(.*Nameless\)"):
        get_service_name(Nameless)
    with pytest.raises(ConfigurationError, match=r"must be a string \(.*Numbered.name\)"):
        get_service_name(Numbered)


def test_reprs_show_class_service_and_attribute():
    class Service:
        name = "service"
        dependency = DependencyProvider()

        @dummy
        def method(self):
            pass

    container = ServiceContainer(Service, {})
    assert repr(get_extension(container, Entrypoint)).startswith("<Entrypoint [service.method] at")
    assert repr(get_extension(container, DependencyProvider)).startswith(
        "<DependencyProvider [service.dependency] at"
    )
    assert repr(Extension()).startswith("<Extension [unbound] at")


def no_arguments(self):
    pass


def positional(self, a, b=1):
    pass


def variable(self, a, *args, **kwargs):
    pass


def keyword_only(self, a, *, b, c=1):
    pass


def no_self(*args):
    pass


CALLS = [
    ((), {}),
    ((1,), {}),
    ((1, 2), {}),
    ((1, 2, 3), {}),
    ((), {"a": 1}),
    ((), {"b": 1}),
    ((), {"a": 1, "b": 2}),
    ((1,), {"a": 1}),
    ((1,), {"b": 1}),
    ((1,), {"c": 1}),
    ((1, 2), {"b": 1}),
    ((), {"self": 1}),
]


@pytest.mark.parametrize("fn", [no_arguments, positional, variable, keyword_only, no_self])
@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_arguments_are_accepted_exactly_as_python_does(fn, args, kwargs):
    container = Mock(service_cls=Mock(method=fn))
    entrypoint = Entrypoint().bind(container, "method")
    expected = refused = None
    try:
        inspect.getcallargs(fn, None, *args, **kwargs)
    except TypeError as exc:
        expected = str(exc)
    try:
        entrypoint.check_signature(list(args), kwargs)
    except IncorrectSignature as exc:
        refused = str(exc)
    assert refused == expected


@pytest.mark.parametrize(("args", "kwargs"), [(None, {}), ((), None), ((), [])])
def test_arguments_of_the_wrong_type_are_not_accepted(args, kwargs):
    container = Mock(service_cls=Mock(method=positional))
    entrypoint = Entrypoint().bind(container, "method")
    with pytest.raises(IncorrectSignature):
        entrypoint.check_signature(args, kwargs)

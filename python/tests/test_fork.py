"""Programs that fork: servers with worker processes, process pools, methods that use them.

A child has none of its parent's threads. Supported uses work, others raise at once.
"""

import subprocess
import sys
import textwrap

from program import TIMEOUT, environment

SERVICE = """
import multiprocessing, os, sys, time
from nameko.events import EventDispatcher, event_handler
from nameko.rpc import RpcProxy, rpc
from nameko.runners import ServiceRunner, run_services
from nameko.standalone.events import event_dispatcher
from nameko.standalone.rpc import AsyncClusterRpcClient, ClusterRpcProxy

uri, uid = sys.argv[1:]
config = {"AMQP_URI": uri}
name = "service_" + uid

class Service:
    name = name
    own = RpcProxy(name)
    dispatch = EventDispatcher()

    @rpc
    def echo(self, value):
        return value

    @rpc
    async def echo_later(self, value):
        return value

def call(client=None):
    with client or ClusterRpcProxy(config, timeout=10) as cluster:
        return cluster[name].echo("called")

def in_child(function):
    '''Prints the result of a function in a forked child, which has to exit soon.'''
    began = time.monotonic()
    child = os.fork()
    if not child:
        try:
            print(function(), flush=True)
        except Exception as exc:
            print(type(exc).__name__, exc, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert time.monotonic() - began < 5, "it waited for its parent's threads"
"""


def run(code, uri, uid):
    """Runs a program in a new process. Returns its lines of output."""
    program = SERVICE + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, uri, uid],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_client_created_before_the_fork_must_be_started_again(broker_uri, uid):
    """A web server that loads its application before it forks its workers."""
    code = """
    import asyncio
    client = ClusterRpcProxy(config, timeout=10)
    dispatch = event_dispatcher(config)

    async def call_on_loop():
        async with AsyncClusterRpcClient(config=config, timeout=10) as cluster:
            return await cluster[name].echo("awaited")

    with run_services(config, Service):
        cluster = client.start()
        cluster[name].echo(1)
        in_child(lambda: cluster[name].echo(2))
        in_child(client.stop)
        in_child(lambda: [client.stop(), call(client)])
        in_child(lambda: client.start()[name].echo("started anew"))
        in_child(call)
        in_child(lambda: asyncio.run(call_on_loop()))
        print(cluster[name].echo("the parent's works on"))
        client.stop()
    """
    refused, stopped, again, anew, fresh, awaited, parent = run(code, broker_uri, uid)
    assert refused.startswith("RuntimeError this client was started in another process")
    assert (stopped, again, anew) == ("None", "[None, 'called']", "started anew")
    assert (fresh, awaited, parent) == ("called", "awaited", "the parent's works on")


def test_a_method_may_fork(broker_uri, uid):
    """multiprocessing in a service, with Linux's former default start method."""
    code = """
    received = []

    def report(service, write):
        service.dispatch("forked", "from the child")
        try:
            service.own.echo(1)
        except RuntimeError as exc:
            write.send(str(exc))

    class Forking(Service):
        @rpc
        def fork(self):
            context = multiprocessing.get_context("fork")
            read, write = context.Pipe(duplex=False)
            child = context.Process(target=report, args=(self, write))
            child.start()
            child.join(10)
            assert child.exitcode == 0, child
            return read.recv()

        @event_handler(name, "forked")
        def on_forked(self, payload):
            received.append(payload)

    with run_services(config, Forking), ClusterRpcProxy(config, timeout=20) as cluster:
        print(cluster[name].fork())
        while not received:
            time.sleep(0.01)
        print(received[0], cluster[name].echo(1))
    """
    refused, received = run(code, broker_uri, uid)
    assert "start a client in each process" in refused
    assert received == "from the child 1"


def test_children_of_a_serving_process_work(broker_uri, uid):
    """Replies in flight during the fork do not affect a child."""
    code = """
    runner = ServiceRunner(config)
    runner.add_service(Service)
    runner.start()

    def served_here():
        class Child(Service):
            name = name + "_child"
        with run_services(config, Child), ClusterRpcProxy(config, timeout=10) as cluster:
            return cluster[Child.name].echo(1), cluster[Child.name].echo_later(2)

    with ClusterRpcProxy(config, timeout=10) as cluster:
        cluster[name].echo_later(1)  # its loop is not the child's
        calls = [cluster[name].echo.call_async(n) for n in range(300)]
        in_child(call)
        in_child(served_here)
        in_child(runner.stop)
        in_child(runner.kill)
        in_child(runner.wait)
        assert [each.result() for each in calls] == list(range(300))
    runner.stop()
    """
    assert run(code, broker_uri, uid) == ["called", "(1, 2)", "None", "None", "None"]

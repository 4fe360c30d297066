"""nameko-redis: a client shared by all workers."""

from nameko_redis import Redis

from nameko.rpc import rpc


def test_workers_share_a_client(serve, cluster, redis_url, uid):
    class Counter:
        name = "counter-" + uid
        redis = Redis("development")

        @rpc
        def count(self):
            return self.redis.incr("count-" + uid)

        @rpc
        def pop(self):
            # Blocks inside the driver.
            return self.redis.blpop(["list-" + uid], timeout=20)[1]

        @rpc
        def push(self, value):
            self.redis.rpush("list-" + uid, value)

    container = serve(Counter, REDIS_URIS={"development": redis_url})
    service = cluster[Counter.name]
    replies = [service.count.call_async() for _ in range(50)]
    assert sorted(reply.result() for reply in replies) == list(range(1, 51))
    waiting = [service.pop.call_async() for _ in range(5)]
    for number in range(5):
        service.push(str(number))
    assert sorted(reply.result() for reply in waiting) == list("01234")
    container.stop()
    [provider] = container.dependencies
    assert provider.client is None

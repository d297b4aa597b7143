from hypothesis import given, settings
from hypothesis import strategies as st

from landmark_onnx.inference.batching import Buckets
from landmark_onnx.inference.fair_queue import FairQueue


def put(queue, client, item, *, cost=1.0, batch=4):
    number = queue.join(client, cost)
    queue.put(client, number, batch, item)
    return number


def taken(queue):
    """All that can be taken now."""
    return list(iter(queue.take, None))


def test_of_one_client_they_come_in_the_order_they_were_put():
    queue = FairQueue(100)
    assert queue.take() is None
    for item in range(5):
        put(queue, "a", item)
    assert taken(queue) == [0, 1, 2, 3, 4]


def test_who_has_sent_little_comes_before_the_rest_of_who_has_sent_much():
    queue = FairQueue(100)
    numbers = [put(queue, "greedy", number) for number in range(8)]
    assert [queue.take() for _ in range(4)] == [0, 1, 2, 3]
    queue.ran(numbers[0])
    put(queue, "polite", "one")
    assert queue.take() == "one"
    assert taken(queue) == [4, 5, 6, 7]


def test_what_costs_more_counts_for_more():
    queue = FairQueue(100)
    for number in range(3):
        put(queue, "dear", f"dear {number}", cost=2.6)
    for number in range(6):
        put(queue, "cheap", number, cost=1)
    assert taken(queue) == [0, 1, "dear 0", 2, 3, 4, "dear 1", 5, "dear 2"]


def leave(queue, client, count):
    for _ in range(count):
        queue.release(client)
        queue.leave(client)


def test_a_client_alone_has_the_whole_window_and_beside_others_its_share():
    queue = FairQueue(6)
    for number in range(20):
        put(queue, "greedy", number, batch=1)
    assert taken(queue) == [0, 1, 2, 3, 4, 5]
    put(queue, "other", "one", batch=1)
    assert taken(queue) == []
    leave(queue, "greedy", 3)
    assert taken(queue) == ["one"], "three are inside, half of six"
    leave(queue, "greedy", 1)
    assert taken(queue) == [6]
    leave(queue, "other", 1)
    assert taken(queue) == [7, 8, 9]


def test_a_share_is_two_batches_at_least_and_the_window_four():
    queue = FairQueue(6)
    for client in range(10):
        for number in range(20):
            put(queue, str(client), (client, number), batch=3)
    assert len(taken(queue)) == 12
    queue = FairQueue(6)
    for number in range(20):
        put(queue, "greedy", number, batch=3)
    for client in range(10):
        queue.join(str(client), 1)
    assert taken(queue) == [0, 1, 2, 3, 4, 5]


def test_what_is_removed_does_not_come_and_who_has_nothing_left_is_forgotten():
    queue = FairQueue(100)
    items = [object() for _ in range(4)]
    for item in items:
        put(queue, "a", item)
    queue.remove("a", items[1])
    queue.leave("a")
    assert (taken(queue), queue.open("a")) == ([items[0], items[2], items[3]], 3)
    assert queue.number("a", 1) == 5
    for _ in range(3):
        queue.release("a")
        queue.leave("a")
    assert (queue.open("a"), queue.number("a", 1)) == (0, 1)


def test_an_item_that_never_waits_has_a_number_all_the_same():
    queue = FairQueue(100)
    assert [queue.join("a", 2), queue.join("a", 2), queue.join("b", 2)] == [2, 4, 2]
    assert queue.take() is None
    queue.ran(4)
    queue.ran(2)
    assert queue.join("c", 1) == 5


@settings(max_examples=200)
@given(st.integers(1, 4), st.integers(1, 60), st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(1, 3))
def test_who_sends_one_at_a_time_waits_for_two_batches_and_its_own(batch, greedy, pauses, shapes):
    """Beside a client with any number of images of any shapes, with a device that runs them batch by batch."""
    queue, buckets, arrivals, waited = FairQueue(4), Buckets(), list(pauses), 0

    def send(client, shape):
        number = queue.join(client, 1)
        queue.put(client, number, batch, (client, shape, number))

    for number in range(greedy):
        send("greedy", number % shapes)
    while True:
        while item := queue.take():
            buckets.add(item[1], batch, item[2], item)
        if not buckets:
            break
        members = buckets.oldest()
        queue.ran(members[0][0])
        if arrivals and arrivals[0] == 0 and not queue.open("polite"):  # it comes while this batch runs
            send("polite", arrivals.pop(0) + 99)
            waited = 0
        elif queue.open("polite"):
            waited += 1
            assert waited <= 2, "one more, and its own"
        elif arrivals:
            arrivals[0] -= 1
        for _, (client, *_) in members:
            queue.release(client)
            queue.leave(client)
    assert not queue.open("polite")
    assert not queue.open("greedy")

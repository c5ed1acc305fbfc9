"""Readers of published weights get whole vectors, the newest ones, whoever dies meanwhile."""

import fcntl
import multiprocessing
import threading
import time

import pytest
import torch
from processes import PATIENCE

from trainer.published_weights import NOTHING, PublishedWeights

SIZE = 2**20


@pytest.fixture
def published():
    weights = PublishedWeights(SIZE)
    yield weights
    weights.close()


def started(target, *arguments):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def test_the_newest_weights_are_read_with_their_version(published):
    vector = torch.empty(SIZE)
    assert published.version == NOTHING
    for version in (7, 8, 9):
        published.publish(version, torch.full((SIZE,), version / 2))
        assert published.version == version
        assert published.load_into(vector) == version
        assert vector.unique().tolist() == [version / 2]


def read_all(published, connection):
    """Read without pause until the last version; send what was torn and how many were read."""
    vector, torn, seen = torch.empty(SIZE), [], []
    connection.send("reading")
    while not seen or seen[-1] >= 0:
        seen.append(published.load_into(vector))
        if not bool((vector == seen[-1]).all()):
            torn.append(seen[-1])
    connection.send((torn, seen[:-1] == sorted(seen[:-1]), len(set(seen))))


def test_what_is_read_while_it_is_written_is_never_torn(published):
    ours, theirs = multiprocessing.Pipe()
    published.publish(0, torch.zeros(SIZE))
    reader = started(read_all, published, theirs)
    assert ours.recv() == "reading"
    vector = torch.empty(SIZE)
    for version in (*range(1, 1000), -2):  # fast enough to come round to a slot that is being read
        published.publish(version, vector.fill_(version))
    torn, in_order, read = ours.recv()
    reader.join()
    assert torn == []
    assert in_order
    assert read > 10  # while they were written


def hold(published, connection):
    with published._locked(0, fcntl.LOCK_SH), published._locked(1, fcntl.LOCK_SH):
        connection.send("holding")
        time.sleep(600)


def test_a_reader_that_is_killed_in_the_middle_holds_nobody_up(published):
    ours, theirs = multiprocessing.Pipe()
    reader = started(hold, published, theirs)
    assert ours.recv() == "holding"
    writing = threading.Thread(target=published.publish, args=(1, torch.ones(SIZE)))
    writing.start()
    writing.join(0.3)
    assert writing.is_alive()  # a reader that lives is waited for
    reader.kill()
    writing.join(PATIENCE)
    assert not writing.is_alive()
    reader.join()
    assert published.version == 1

import threading

import cloudpickle
import pytest
import torch

from tasks.gathering import Gathered
from tests.waiting import wait_for


def ask_together(gathered, pictures, *, gate, waiting):
    """Each picture by a thread of its own; the first holds the turn until all others wait."""
    answers = [None] * len(pictures)

    def ask(number):
        answers[number] = gathered(pictures[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(pictures))]
    threads[0].start()
    wait_for(lambda: waiting() == 1)
    for thread in threads[1:]:
        thread.start()
    wait_for(lambda: len(gathered._waiting) == len(pictures) - 1)
    gate.set()
    for thread in threads:
        thread.join()
    return answers


def doubled(*, most=99):
    """A function that notes the size of its batches, waits in the first, and has memory for `most` pictures."""
    gate, sizes = threading.Event(), []

    def function(pictures_BCHW):
        sizes.append(len(pictures_BCHW))
        gate.wait()
        if len(pictures_BCHW) > most:
            raise torch.OutOfMemoryError
        return 2 * pictures_BCHW

    return function, gate, sizes


def pictures_of(*sides):
    return [torch.full((3, side, side), float(number)) for number, side in enumerate(sides)]


def test_gathered__what_waits_is_computed_together_by_shape():
    function, gate, sizes = doubled()
    pictures = pictures_of(4, 4, 4, 6, 4, 6)
    answers = ask_together(Gathered(function=function), pictures, gate=gate, waiting=lambda: len(sizes))
    assert all(torch.equal(answer, 2 * picture) for answer, picture in zip(answers, pictures, strict=True))
    assert sorted(sizes) == [1, 2, 3]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_gathered__batches_shrink_to_what_memory_holds(most):
    function, gate, sizes = doubled(most=most)
    gathered, pictures = Gathered(function=function), pictures_of(*[4] * 8)
    answers = ask_together(gathered, pictures, gate=gate, waiting=lambda: len(sizes))
    assert all(torch.equal(answer, 2 * picture) for answer, picture in zip(answers, pictures, strict=True))
    assert gathered.largest <= most < max(sizes)


def test_gathered__a_picture_too_large_for_memory_is_an_error():
    function, gate, _ = doubled(most=0)
    gate.set()
    with pytest.raises(torch.OutOfMemoryError):
        Gathered(function=function)(torch.zeros(3, 4, 4))


def test_gathered__travels_to_other_processes():
    travelled = cloudpickle.loads(cloudpickle.dumps(Gathered(function=torch.neg, largest=3)))
    assert travelled.largest == 3 and torch.equal(travelled(torch.ones(3, 2, 2)), -torch.ones(3, 2, 2))

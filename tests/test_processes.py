"""A process that dies, takes too long or wants too much memory loses its own task alone."""

import os
import time

from processes import Lost, answers


def work(task):
    if task == "die":
        os._exit(3)
    if task == "sleep":
        time.sleep(60)
    if task == "grow":
        try:
            return len(bytearray(2**31))
        except MemoryError:
            return "no memory"
    return 2 * task


def test_each_task_has_its_answer_or_is_lost_alone():
    found = dict(answers(work, [1, "die", 2, "sleep", 3, "grow", 4], 2, seconds=3, memory=2**30))
    assert {k: v for k, v in found.items() if not isinstance(v, Lost)} == {
        1: 2, 2: 4, 3: 6, 4: 8, "grow": "no memory",
    }  # fmt: skip
    assert found["die"] == Lost("its process died, exit status 3")
    assert found["sleep"] == Lost("no answer in 3 s")


def test_one_who_has_enough_stops_them():
    for task, answer in answers(work, iter(range(10**9)), 2):
        assert answer == 2 * task
        if task > 5:
            break

"""Frames of recordings: worked by hand, and counted event by event."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikedistill.data import Recording
from spikedistill.data.recordings import frames_of

Event = tuple[int, int, int, int]
SIDE = (34, 40)


def recording(events: list[Event]) -> Recording:
    x, y, p, t = np.array(events).reshape(-1, 4).T
    return Recording(x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8), t.astype(np.int64))


SIX = [(0, 5, 1, 100), (1, 5, 0, 101), (1, 5, 0, 102), (2, 5, 1, 103), (2, 5, 1, 104), (33, 33, 0, 199)]


def test_frames_by_number_by_hand() -> None:
    frames = frames_of(recording(SIX), 3, "number", SIDE)  # two events a frame
    assert frames.shape == (3, 2, 34, 40)
    assert frames.sum((1, 2, 3)).tolist() == [2, 2, 2]
    assert frames[0, 1, 5, 0] == 1
    assert frames[0, 0, 5, 1] == 1
    assert frames[1, 0, 5, 1] == 1
    assert frames[2, 0, 33, 33] == 1


@pytest.mark.parametrize(
    ("slicing", "timesteps", "counts"),
    [
        ("number", 4, [1, 1, 1, 3]),  # one in each and the remaining two in the last
        ("even", 4, [2, 1, 2, 1]),  # the remaining two spread
        ("number", 8, [0] * 7 + [6]),  # too few for eight
        ("even", 8, [1, 1, 1, 0, 1, 1, 1, 0]),
        ("time", 2, [5, 1]),  # 99 microseconds: 49 a frame, the last has 50
        ("time", 100, [0] * 99 + [6]),  # less than a microsecond a frame
        ("even-time", 2, [5, 1]),  # 100 microseconds: 50 a frame
    ],
)
def test_how_many_events_each_frame_has(slicing: str, timesteps: int, counts: list[int]) -> None:
    assert frames_of(recording(SIX), timesteps, slicing, SIDE).sum((1, 2, 3)).tolist() == counts


def test_time_and_even_time_differ_at_an_edge() -> None:
    # 101 microseconds: 33 of the edges 33, 66 and the last to 101; or edges at 34, 68
    events = recording([(0, 0, 0, 0), (0, 0, 0, 33), (0, 0, 0, 67), (0, 0, 0, 101)])
    assert frames_of(events, 3, "time", SIDE).sum((1, 2, 3)).tolist() == [1, 1, 2]
    assert frames_of(events, 3, "even-time", SIDE).sum((1, 2, 3)).tolist() == [2, 1, 1]


def test_frames_of_a_fixed_duration_need_not_see_the_rest() -> None:
    # 2 milliseconds each; the event at 6 ms is in no frame, nor does it change those before it
    events = recording([(1, 2, 0, 7000), (1, 2, 0, 8999), (3, 4, 1, 9000), (5, 6, 1, 13000)])
    frames = frames_of(events, 3, "duration", SIDE, milliseconds=2)
    assert frames.sum((1, 2, 3)).tolist() == [2, 1, 0]
    assert frames[0, 0, 2, 1] == 2
    assert frames[1, 1, 4, 3] == 1
    assert torch.equal(
        frames[:2], frames_of(recording([(1, 2, 0, 7000), (1, 2, 0, 8999), (3, 4, 1, 9000)]), 2, "duration", SIDE, 2)
    )


@pytest.mark.parametrize("slicing", ["number", "even", "time", "even-time", "duration"])
def test_a_recording_without_events_has_empty_frames(slicing: str) -> None:
    frames = frames_of(recording([]), 4, slicing, SIDE, 1.0)
    assert frames.shape == (4, 2, 34, 40)
    assert not frames.any()


events_strategy = st.lists(
    st.tuples(st.integers(0, 39), st.integers(0, 33), st.integers(0, 1), st.integers(0, 2**23 - 1)),
    min_size=1,
    max_size=60,
)


@given(events_strategy, st.integers(1, 12), st.sampled_from(["number", "even", "time", "even-time"]))
def test_every_event_is_counted_once_where_it_happened(events: list[Event], timesteps: int, slicing: str) -> None:
    events = sorted(events, key=lambda event: event[3])
    first, last, T = events[0][3], events[-1][3], timesteps
    expected = torch.zeros(T, 2, *SIDE)
    for n, (column, row, polarity, time) in enumerate(events):
        if slicing == "number":
            frame = sum(n >= len(events) // T * (k + 1) for k in range(T - 1))
        elif slicing == "even":
            frame = n * T // len(events)
        elif slicing == "time":
            frame = sum(time >= first + (last - first) // T * (k + 1) for k in range(T - 1))
        else:
            frame = (time - first) * T // (last - first + 1)
        expected[frame, polarity, row, column] += 1
    assert torch.equal(frames_of(recording(events), T, slicing, SIDE), expected)
